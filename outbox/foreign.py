"""Messages without a row that get one: of an outside producer that must run again, and replays of dead letters."""

from __future__ import annotations

import logging
import uuid
from dataclasses import replace
from typing import Any

from celery import Task
from django.db import IntegrityError, transaction

from outbox import dead_letters, payload, rows
from outbox.broker.envelope import RETRIES_HEADER
from outbox.enqueue import new_message, registered
from outbox.errors import NotAdopted

log = logging.getLogger(__name__)

#: What the broker writes into a message; another delivery of the same copy has other values.
_BROKERS_HEADERS = frozenset(
    {"redelivered", "x-delivery-count", "x-acquired-count", "x-death"}
    | {f"x-{which}-death-{what}" for which in ("first", "last") for what in ("exchange", "queue", "reason")}
)


def adopt(
    task: Task, args: tuple[Any, ...], kwargs: dict[str, Any], *, delay_s: float, attempts: int
) -> None:
    """Write a row for a message of an outside producer, so that its next run is journaled.

    The row takes the message's id, so that a second delivery of the same copy adopts nothing, and its producer's
    headers, among them what tells the dead-letter desk that it was sent again. `attempts`: runs that it has had, of
    those that its task allows. Raises `NotAdopted` when the id belongs
    to another message, or to one that will not run any more.
    """
    message_id = payload.as_uuid(str(task.request.id))
    headers = {
        name: value
        for name, value in (task.request.headers or {}).items()
        if name not in _BROKERS_HEADERS and payload.is_json(value)
    }
    signature = task.s(*args, **kwargs).set(task_id=str(message_id), countdown=delay_s, headers=headers)
    queue = (task.request.delivery_info or {}).get("routing_key")
    # A replay from here on, so that its end is reported to the dead letter that waits for it.
    replays = int(_replay_header() in headers)
    row = replace(new_message(signature, {"queue": queue} if queue else {}), replays=replays)
    try:
        with transaction.atomic():
            rows.insert([row])
            if attempts:
                rows.begin_with(message_id, attempts=attempts)
    except IntegrityError:
        if not rows.has_open(row):
            raise NotAdopted(
                f"{task.name} {message_id} was to run again, but its id belongs to another message, or to one that has"
                " ended"
            ) from None
        log.info("%s %s is adopted already", task.name, message_id)


def adopt_replay(
    task: str,
    args: list[Any],
    kwargs: dict[str, Any],
    *,
    queue: str,
    origin: str,
    copy_id: str | None = None,
    retries: int | None,
) -> uuid.UUID:
    """Write a row for a message without one that an operator sends again. Returns its id: the message's own if it is free.

    `origin`: what the dead-letter desk knows it by. `copy_id`: the id of an edited copy.
    `retries`: how many it may have, None: as many as its task says.
    Raises EnqueueError for what cannot be a row.
    """
    message_id = payload.as_uuid(copy_id or origin)
    header = _replay_header()
    headers: dict[str, Any] = {header: origin} if header else {}
    if retries is not None:
        headers[RETRIES_HEADER] = retries
    signature = registered(task).signature(tuple(args), kwargs).set(headers=headers)
    row = replace(new_message(signature, {"queue": queue, "task_id": str(message_id)}), replays=1)
    try:
        with transaction.atomic():
            rows.insert([row])
    except IntegrityError:
        message_id = uuid.uuid4()
        rows.insert([replace(row, message_id=message_id)])
    return message_id


def _replay_header() -> str | None:
    """The header by which the dead-letter app knows what it sent again."""
    hooks = dead_letters.hooks()
    return str(hooks.REPLAY_HEADER) if hooks else None
