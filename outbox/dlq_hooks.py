"""What dlq/ calls of the journal; `dlq.journal` says when it calls what. dlq/ finds this module by its name."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from django.db import IntegrityError, transaction

from outbox import conf, edited, foreign, pausing, transitions
from outbox.conf import dead_letters
from outbox.database import is_not_now
from outbox.errors import EnqueueError
from outbox.models import OutboxMessage
from outbox.status import Status
from outbox.worker_failure import as_uuid, worker_failure

__all__ = [
    "HEADER",
    "Refused",
    "adopt",
    "dead_letters",
    "discard",
    "generation",
    "held_back",
    "is_not_now",
    "replace",
    "republish",
    "worker_failure",
]

HEADER = "outbox"


class Refused(Exception):
    """The message is not to be sent again, or not discarded, now; the text says why."""


def generation(headers: dict[str, Any]) -> int | None:
    """Which run of its message this copy is for; None for a message without a row, or with a header that is broken."""
    wire = headers.get(HEADER)
    value = wire.get("generation") if isinstance(wire, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def republish(message_id: str, *, retries: int | None = None) -> str | None:
    """Replay: schedule the message's own row again, as a new generation. None if the row is gone or not dead.

    `retries`: how many the new run may have; None: as many as its task says.

    Raises `Refused` while another message with its dedup key is open.
    """
    known = as_uuid(message_id)
    if known is None:
        return None
    try:
        with transaction.atomic():
            return str(known) if transitions.replay(known, retries=retries) else None
    except IntegrityError:
        raise Refused(
            "another message with its dedup key is open; replay it when that one has ended"
        ) from None


def adopt(
    message_id: str,
    *,
    task: str,
    queue: str,
    args: list[Any],
    kwargs: dict[str, Any],
    retries: int | None,
    copy_id: str | None = None,
) -> str | None:
    """Replay of a message without a row: an operator vouches for it, so that it becomes one. Returns the row's id.

    `copy_id`: the id of an edited copy. None where the message may run as it is, because `OUTBOX_FOREIGN_TASKS` names its task.
    Raises `Refused` for what cannot be a row.
    """
    if task in conf.foreign_tasks():
        return None
    try:
        return str(
            foreign.adopt_replay(
                task, args, kwargs, queue=queue, origin=message_id, copy_id=copy_id, retries=retries
            )
        )
    except EnqueueError as refused:
        raise Refused(str(refused)) from None


def replace(
    message_id: str, *, copy_id: str, args: list[Any], kwargs: dict[str, Any], retries: int | None
) -> bool:
    """Replay with other arguments: a copy takes the dead message's place. False if the row is gone or not dead.

    Raises `Refused` for arguments that cannot be a row, and while another message with its dedup key is open.
    """
    known = as_uuid(message_id)
    try:
        with transaction.atomic():
            return known is not None and edited.replace(
                known, copy_id=uuid.UUID(copy_id), args=args, kwargs=kwargs, retries=retries
            )
    except EnqueueError as refused:
        raise Refused(str(refused)) from None
    except IntegrityError:
        raise Refused(
            "another message with its dedup key, or another head of its group, is open; try again when that one has ended"
        ) from None


def discard(message_id: str) -> None:
    """The operator gave the message up: its group may move on.

    Raises `Refused` when the message is still dead after that, because another transaction is changing it.
    """
    known = as_uuid(message_id)
    if known is None or transitions.cancel(known, reason="dead letter discarded"):
        return
    if OutboxMessage.objects.filter(message_id=known, status=Status.DEAD).exists():
        raise Refused("another transaction is changing it; discard it again")


def held_back() -> Callable[[str, str, bool], str]:
    """Reads once what is paused; the function says which pause a message that is sent again waits for, or ""."""
    queues, tasks = pausing.held_back()

    def by_what(queue: str, task: str, has_row: bool) -> str:
        if not has_row and task in conf.foreign_tasks():
            return ""  # It is published, not enqueued.
        if task in tasks:
            return f"task {task}"
        return f"queue {queue}" if queue in queues and queues[queue].is_paused else ""

    return by_what
