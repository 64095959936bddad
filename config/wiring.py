"""Where the dead-letter desk and the outbox meet: neither imports the other."""

from __future__ import annotations

import logging
import uuid
from typing import Any

from celery.exceptions import NotRegistered
from django.conf import settings
from django.db import IntegrityError, transaction

from dlq.replay import NotDiscardable, NotReplayable
from outbox import conf, foreign, heartbeat, transitions
from outbox.database import About, about, may_pass
from outbox.errors import EnqueueError, PoisonMessage
from outbox.models import OutboxMessage

log = logging.getLogger(__name__)


def republish(letter: Any, *, retries: int | None = None) -> str | None:
    """Replay: arm the message's own row again, as a new generation. None if the row is gone or not dead.

    `retries`: how many the new run may have; None: as many as its task says.

    Raises `NotReplayable` while another message with its dedup key is open.
    """
    message_id = _uuid(letter.message_id)
    if message_id is None:
        return None
    try:
        with transaction.atomic():
            return str(message_id) if transitions.replay(message_id, retries=retries) else None
    except IntegrityError:
        raise NotReplayable(
            f"{message_id}: another message with its dedup key is open; replay it when that one has ended"
        ) from None


def adopt(letter: Any, *, args: list[Any], kwargs: dict[str, Any], retries: int | None) -> str | None:
    """Replay of a message without a row: an operator vouches for it, so that it becomes one. Returns the row's id.

    None where the message may run as it is, because `OUTBOX_FOREIGN_TASKS` names its task. Raises `NotReplayable` for
    what cannot be a row.
    """
    if letter.task in settings.OUTBOX_FOREIGN_TASKS:
        return None
    try:
        return str(
            foreign.adopt_replay(
                letter.task, args, kwargs, queue=letter.queue, origin=letter.message_id, retries=retries
            )
        )
    except EnqueueError as refused:
        raise NotReplayable(f"{letter.message_id}: {refused}") from None


def discard(letter: Any) -> None:
    """The operator gave the message up: its group may move on.

    Raises `NotDiscardable` when the message is still dead after that, because somebody else is changing it.
    """
    message_id = _uuid(letter.message_id)
    if message_id is None or transitions.cancel(message_id, reason="dead letter discarded"):
        return
    if OutboxMessage.objects.filter(message_id=message_id, status="dead").exists():
        raise NotDiscardable(f"{message_id} is being changed by somebody else; discard it again")


def worker_failure(
    *,
    message_id: str,
    generation: int,
    exception: BaseException | None,
    error: str,
    traceback: str,
    lost: bool,
    pid: int | None = None,
) -> str | None:
    """What the worker's parent saw end badly, told to the journal. Raises when the database is away.

    Returns 'settled' (the child had recorded the end), 'scheduled' (a lost child: it runs again), 'dead', or
    None when there is no such message here, and the dead-letter desk is to record it alone. `pid`: the child that
    took it, None when none did; a lease that is not that child's is nobody's to take.
    """
    known = _uuid(message_id)
    row = (
        known
        and OutboxMessage.objects.filter(message_id=known).values("generation", "status", "task").first()
    )
    if not known or not row:
        return None
    if row["generation"] != generation or row["status"] not in ("pending", "published"):
        return "settled"
    if isinstance(exception, NotRegistered):
        if exception.args[:1] != (row["task"],):
            # Not what the journal sent, whose own copy will come.
            log.warning("A copy of %s names the task %s, its row %s", known, exception, row["task"])
            return "settled"
        grace_s = conf.skew_grace_s()
        if transitions.defer_skewed(known, generation, token=None, error=error, grace_s=grace_s):
            return "scheduled"
    child = heartbeat.identity(pid) if pid else None
    if lost and heartbeat.is_stopping():
        # A supervisor that signals every process of the worker, and not only the first, ends the children itself.
        error = f"{error} (its worker was stopped)"
        again = transitions.lost(known, generation, worker=child, error=error, delay_s=0, counted=False)
        return "scheduled" if again else "settled"
    if about(exception) is About.SERVER:
        again = transitions.lost(known, generation, worker=child, error=error, counted=False)
        return "scheduled" if again else "settled"
    if lost or may_pass(exception):
        limit = _max_deliveries(row["task"])
        poison = transitions.Failure(
            f"PoisonMessage: {limit} runs began and their process was lost each time ({error})",
            PoisonMessage(error),
            traceback,
        )
        if transitions.dead_letter_lost(known, generation, poison, worker=child, max_deliveries=limit):
            return "dead"
        return "scheduled" if transitions.lost(known, generation, worker=child, error=error) else "settled"
    failure = transitions.Failure(error, exception, traceback)
    dead = transitions.dead_letter_worker_failure(known, generation, failure, worker=child)
    return "dead" if dead else "settled"


def _max_deliveries(task: str) -> int:
    from config.celery import app

    registered = app.tasks.get(task)
    return int(getattr(registered, "max_deliveries", 5))


def _uuid(value: Any) -> uuid.UUID | None:
    try:
        return uuid.UUID(str(value))
    except ValueError:
        return None
