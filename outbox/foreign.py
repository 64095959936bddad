"""Messages without a row: how one of an outside producer runs, and those that get a row, to run again or as a replay."""

from __future__ import annotations

import logging
import uuid
from dataclasses import replace
from datetime import UTC
from typing import Any

from celery import Task
from celery.exceptions import Reject, Retry
from celery.utils.time import maybe_iso8601
from django.db import IntegrityError, transaction

from outbox import conf, dead_letters, payload, report, rows
from outbox.broker.envelope import REQUEST_ID_HEADER, RETRIES_HEADER, TRACEPARENT_HEADER
from outbox.database import DatabaseUnavailable, described, leave_server, may_pass, patiently
from outbox.enqueue import new_message, registered
from outbox.errors import Defer, EnqueueError, ForeignMessage, NotAdopted
from outbox.retry_policy import seconds_until
from outbox.run_failure import AGAIN_S

log = logging.getLogger(__name__)

#: What the broker writes into a message; another delivery of the same copy has other values.
_BROKERS_HEADERS = frozenset(
    {"redelivered", "x-delivery-count", "x-acquired-count", "x-death"}
    | {f"x-{which}-death-{what}" for which in ("first", "last") for what in ("exchange", "queue", "reason")}
)


#: Where Celery keeps what a canvas runs next. It would publish that after the effect, bypassing the outbox; a chord
#: without a result backend never ends.
_CANVAS = ("callbacks", "errbacks", "chain", "chord")


def run(task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a message from a producer that knows no outbox. If it is to run later, or again, it becomes a row.

    Its `expires` is looked at when it arrives; a row has none. Raises `ForeignMessage` for a task that
    `OUTBOX_FOREIGN_TASKS` does not name: who can write to the broker could else run any task with any arguments.
    """
    follow_ups = _drop_canvas(task.request)
    if task.name not in conf.foreign_tasks():
        raise ForeignMessage(
            f"a message without a row does not run: {task.name} is not in OUTBOX_FOREIGN_TASKS. Replay it if it is yours"
        )
    if follow_ups:
        # What is to follow a run here must be enqueued by it: refused before the effect, not lost after it.
        raise EnqueueError(
            f"{task.name}: the message carries {', '.join(follow_ups)}, which would never run here: send it "
            "without, and enqueue the next step from the task before it"
        )
    due: Any = maybe_iso8601(task.request.eta)
    early_s = seconds_until(due, UTC) if due else 0.0
    cause: Exception
    # A deferral spends none.
    retries, policy = task.request.retries, task.retry_policy()
    attempt, outcome = _attempt(task, args, kwargs), "failed"
    try:
        if early_s > 0:
            raise Defer(early_s, "its time has not come")
        result = task.run_body(*args, **kwargs)
        attempt.ended(report.DONE)
        return result
    except Defer as error:
        cause, delay_s, outcome = error, error.seconds, "deferred"
    except Retry as error:
        if policy.spent(error, retries):
            raise error.exc or task.MaxRetriesExceededError(f"{task.name}: no retry is left") from None
        cause, delay_s, retries = error, policy.delay_of(error, retries), retries + 1
    except Exception as error:
        leave_server(error)
        if may_pass(error):
            cause, delay_s = error, AGAIN_S
        elif policy.may_retry(error, retries):
            cause, delay_s, retries = error, policy.delay_s(retries), retries + 1
        else:
            raise
    level = logging.INFO if outcome == "deferred" else logging.WARNING
    attempt.ended(outcome, error=described(cause), again_s=delay_s, level=level)
    try:
        patiently(lambda: adopt(task, args, kwargs, delay_s=delay_s, attempts=retries))
    except NotAdopted as refused:
        raise refused from cause
    except DatabaseUnavailable as unavailable:
        # There is no row of which the worker's parent could know it; the broker has the message still.
        raise Reject(unavailable, requeue=True) from cause
    raise Retry(f"again in {delay_s:g} s, as a message of the outbox")


def _attempt(task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> report.Attempt:
    headers = task.request.headers or {}
    correlation_id, request_id, traceparent = (
        str(headers.get(name) or "")[:255]
        for name in ("correlation_id", REQUEST_ID_HEADER, TRACEPARENT_HEADER)
    )
    return report.Attempt(
        task.name, task.request.id, task.request.retries + 1, task.retry_limit(), args, kwargs,
        correlation_id=correlation_id, request_id=request_id, traceparent=traceparent,
    )  # fmt: skip


def _drop_canvas(request: Any) -> list[str]:
    """Drop what is to follow the run, which Celery would send also in reporting a refusal. Returns what there was."""
    found = [name for name in _CANVAS if getattr(request, name)]
    for name in found:
        setattr(request, name, None)
    return found


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
