"""Enqueueing: a message is a row of the caller's transaction, so it exists if and only if its cause does.

Idea: transactional outbox (Richardson, microservices.io); one statement a call, whatever the number of messages.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from celery import Task, current_app
from celery.canvas import Signature
from django.conf import settings
from django.db import IntegrityError, connection, transaction

from outbox import context, intake
from outbox.errors import EnqueueError, NotAdopted, UnknownQueue, is_delay
from outbox.statement import storable
from outbox.wire import RETRIES_HEADER

log = logging.getLogger(__name__)

#: A message carries ids, not objects; what is larger belongs into a table.
MAX_PAYLOAD_BYTES = 64 * 1024
#: RabbitMQ takes all headers in one frame of 128 KB, in an encoding that can be 2.5 times as long as JSON. More
#: would cut the relay's connection, again and again.
MAX_HEADERS_BYTES = 32 * 1024
MAX_KEY_CHARS = 255
#: Levels of lists and mappings in the headers, and in the body, which is a list of args and kwargs. A consumer refuses
#: more as malformed: PostgreSQL's jsonb and Python's pickle recurse, the latter in the worker's event loop.
MAX_DEPTH = 64
#: In JSON a bracket, and what may hold one that is none.
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{}]')
#: An escaped NUL, but not the text of such an escape.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
#: What a signature may carry besides its arguments. Everything else would be silently lost.
_OPTIONS = frozenset(
    {"queue", "countdown", "task_id", "ordering_key", "correlation_id", "dedup_key", "headers"}
)

#: What the broker writes into a message; another delivery of the same copy has other values.
_BROKERS_HEADERS = frozenset(
    {"redelivered", "x-delivery-count", "x-acquired-count", "x-death"}
    | {f"x-{which}-death-{what}" for which in ("first", "last") for what in ("exchange", "queue", "reason")}
)

_importing = threading.Lock()


def enqueue(
    signature: Signature,
    *,
    queue: str | None = None,
    ordering_key: str = "",
    delay: float = 0.0,
    correlation_id: str | None = None,
    dedup_key: str = "",
) -> uuid.UUID:
    """Write one message into the caller's transaction and return its id, which is also the Celery task id.

    `delay` is in seconds. Messages with one `ordering_key` run one at a time, in commit order. While a message
    with the same `dedup_key` is open, no second one is written; the id returned then belongs to none.
    Inside a running message and outside `atomic`, it is written together with that message's settlement.

    Raises EnqueueError for canvases, unknown tasks or queues, and arguments that are not JSON, too large or
    too deeply nested.
    """
    (message_id,) = enqueue_many(
        [signature],
        queue=queue,
        ordering_key=ordering_key,
        delay=delay,
        correlation_id=correlation_id,
        dedup_key=dedup_key,
    )
    return message_id


def enqueue_many(
    signatures: Iterable[Signature],
    *,
    queue: str | None = None,
    ordering_key: str = "",
    delay: float = 0.0,
    correlation_id: str | None = None,
    dedup_key: str = "",
) -> list[uuid.UUID]:
    """`enqueue` for many messages in one statement; the options are those of every message."""
    overrides = {
        "queue": queue,
        "ordering_key": None if ordering_key == "" else ordering_key,
        "countdown": None if delay == 0 else delay,
        "correlation_id": correlation_id,
        "dedup_key": None if dedup_key == "" else dedup_key,
    }
    given = {name: value for name, value in overrides.items() if value is not None}
    rows = [_row(signature, given) for signature in signatures]
    ids = [row["message_id"] for row in rows]
    run = context.current()
    if run is not None:
        rows = intake.unwritten(rows, run.children, now=_in_own_transaction())
    if run is not None and not _in_own_transaction():
        run.children.update((row["message_id"], row) for row in rows)
    else:
        intake.insert(rows)
    return ids


def emit(
    event: str, /, *, ordering_key: str = "", correlation_id: str | None = None, **kwargs: Any
) -> list[uuid.UUID]:
    """Enqueue one message for each task that `OUTBOX_EVENTS` names for this event, with these arguments.

    `ordering_key` is for those of the tasks that are `ordered`: the others of the event run side by side.

    Raises EnqueueError when the setting does not know the event, so that a misspelt one is not lost.
    """
    try:
        names: Sequence[str] = settings.OUTBOX_EVENTS[event]
    except KeyError:
        raise EnqueueError(f"event {event!r} is not in OUTBOX_EVENTS") from None
    signatures = []
    for name in names:
        task = _registered(name)
        given: dict[str, Any] = {"ordering_key": ordering_key} if ordering_key != "" and task.ordered else {}
        signatures.append(task.signature(kwargs=kwargs, **given))
    return enqueue_many(signatures, correlation_id=correlation_id)


def adopt(
    task: Task, args: tuple[Any, ...], kwargs: dict[str, Any], *, delay_s: float, attempts: int
) -> None:
    """Write a row for a message of an outside producer, so that its next run is journaled.

    The row takes the message's id, so that a second delivery of the same copy adopts nothing, and its producer's
    headers, among them what tells the dead-letter desk that it was sent again. `attempts`: runs that it has had, of
    those that its task allows. Raises `NotAdopted` when the id belongs
    to another message, or to one that will not run any more.
    """
    foreign_id = str(task.request.id)
    try:
        message_id = uuid.UUID(foreign_id)
    except ValueError:
        message_id = uuid.uuid5(uuid.NAMESPACE_OID, foreign_id)
    headers = {
        name: value
        for name, value in (task.request.headers or {}).items()
        if name not in _BROKERS_HEADERS and _is_json(value)
    }
    signature = task.s(*args, **kwargs).set(task_id=str(message_id), countdown=delay_s, headers=headers)
    queue = (task.request.delivery_info or {}).get("routing_key")
    row = _row(signature, {"queue": queue} if queue else {})
    # A replay from here on, so that its end is told to the dead-letter desk, whose letter waits for it.
    row["replays"] = int(getattr(settings, "OUTBOX_REPLAY_HEADER", None) in headers)
    try:
        with transaction.atomic():
            intake.insert([row])
            if attempts:
                intake.begin_with(message_id, attempts=attempts)
    except IntegrityError:
        if not intake.has_open(row):
            raise NotAdopted(
                f"{task.name} {message_id} was to run again, but its id belongs to another message, or to one that has"
                " ended"
            ) from None
        log.info("%s %s is adopted already", task.name, message_id)


def adopt_replay(
    task: str, args: list[Any], kwargs: dict[str, Any], *, queue: str, origin: str, retries: int | None
) -> uuid.UUID:
    """Write a row for a message without one that an operator sends again. Returns its id: the message's own if it is free.

    `origin`: what the dead-letter desk knows it by. `retries`: how many it may have, None: as many as its task says.
    Raises EnqueueError for what cannot be a row.
    """
    try:
        message_id = uuid.UUID(origin)
    except ValueError:
        message_id = uuid.uuid5(uuid.NAMESPACE_OID, origin)
    header = getattr(settings, "OUTBOX_REPLAY_HEADER", None)
    headers: dict[str, Any] = {header: origin} if header else {}
    if retries is not None:
        headers[RETRIES_HEADER] = retries
    signature = _registered(task).signature(tuple(args), kwargs).set(headers=headers)
    row = _row(signature, {"queue": queue, "task_id": str(message_id)}) | {"replays": 1}
    try:
        with transaction.atomic():
            intake.insert([row])
    except IntegrityError:
        row["message_id"] = message_id = uuid.uuid4()
        intake.insert([row])
    return message_id


def _in_own_transaction() -> bool:
    """Whether the caller has opened `atomic`; the one that wraps a Django TestCase does not count."""
    return connection.in_atomic_block and not connection.atomic_blocks[-1]._from_testcase


def _row(signature: Signature, overrides: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(signature, Signature):
        raise EnqueueError(
            f"enqueue takes a task signature such as task.s(1), not {type(signature).__name__}"
        )
    if signature.subtask_type:
        raise EnqueueError(
            f"a {signature.subtask_type} cannot be enqueued: enqueue the next step from the task before it, "
            "in the transaction that has its effect"
        )
    options = {name: value for name, value in signature.options.items() if value is not None} | overrides
    lost = sorted(set(options) - _OPTIONS)
    if lost:
        raise EnqueueError(f"{signature.task}: the outbox does not know {', '.join(lost)}")
    task = _registered(str(signature.task))
    try:
        # What Celery's own `delay` checks: here a call that cannot succeed would become a dead letter at night.
        task.__header__(*signature.args, **signature.kwargs)
    except TypeError as error:
        raise EnqueueError(f"{task.name}: {error}") from None
    name = options.get("queue") or task.queue or settings.CELERY_TASK_DEFAULT_QUEUE
    if name not in settings.OUTBOX_QUEUES:
        raise UnknownQueue(name, settings.OUTBOX_QUEUES)
    run = context.current()
    correlation = options.get("correlation_id")
    if correlation is None:
        correlation = run.correlation_id if run else ""
    ordering_key, dedup_key = options.get("ordering_key", ""), options.get("dedup_key", "")
    for field, value in (
        ("ordering_key", ordering_key),
        ("dedup_key", dedup_key),
        ("correlation_id", correlation),
    ):
        if not isinstance(value, str) or len(value) > MAX_KEY_CHARS or storable(value) != value:
            raise EnqueueError(
                f"{task.name}: {field} must be text of at most {MAX_KEY_CHARS} characters, without NUL and lone "
                f"surrogates, not {ascii(value)[:100]}"
            )
    headers = options.get("headers") or {}
    if not isinstance(headers, Mapping):
        raise EnqueueError(f"{task.name}: headers must be a mapping, not {type(headers).__name__}")
    if run:
        headers = {**headers, "causation_id": str(run.message_id)}
    message_id = _message_id(task.name, options["task_id"]) if "task_id" in options else uuid.uuid4()
    return {
        "message_id": message_id,
        "task": task.name,
        "args": _json(task.name, "args", list(signature.args)),
        "kwargs": _json(task.name, "kwargs", dict(signature.kwargs)),
        "headers": _json(task.name, "headers", headers, MAX_HEADERS_BYTES, MAX_DEPTH),
        "correlation_id": correlation,
        "queue": name,
        "ordering_key": ordering_key,
        "passes_over_dead": bool(task.passes_over_dead),
        "dedup_key": dedup_key,
        "delay": _seconds(task.name, options.get("countdown", 0.0)),
        "replays": 0,
        "id_given": "task_id" in options,
    }


def _registered(name: str) -> Task:
    task = current_app.tasks.get(name)
    if task is None:
        # Only workers import all tasks at their start. A web process or a command may name one that it never saw.
        # Celery imports them once; a thread that asks meanwhile is told that it is done, and would find no task.
        with _importing:
            current_app.loader.import_default_modules()
        task = current_app.tasks.get(name)
    if task is None:
        raise EnqueueError(f"task {name!r} is not registered")
    return task


def _message_id(task: str, value: Any) -> uuid.UUID:
    try:
        return uuid.UUID(str(value))
    except ValueError:
        raise EnqueueError(f"{task}: task_id must be a UUID, not {value!r}") from None


def _seconds(task: str, value: Any) -> float:
    if not is_delay(value):
        raise EnqueueError(f"{task}: delay must be a number of seconds from 0 to ten years, not {value!r}")
    return float(value)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _json(
    task: str, field: str, value: Any, limit: int = MAX_PAYLOAD_BYTES, depth: int = MAX_DEPTH - 1
) -> str:
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise EnqueueError(
            f"{task}: {field} must be JSON ({error}); pass ids, and read fresh data in the task"
        ) from None
    if _NUL.search(text):
        raise EnqueueError(f"{task}: {field} holds a NUL character, which PostgreSQL cannot store")
    if size > limit:
        raise EnqueueError(f"{task}: {field} has {size} bytes; the limit is {limit}. Pass ids")
    if '"__type__"' in text and '"__value__"' in text:
        # A worker would take the mapping for the dump of an object, and receive something else or nothing.
        raise EnqueueError(
            f"{task}: {field} holds the keys __type__ and __value__, which kombu keeps for itself"
        )
    # Most texts have fewer brackets than that, and need not be read.
    if text.count("[") + text.count("{") > depth and _depth(text) > depth:
        raise EnqueueError(f"{task}: {field} is nested deeper than {depth} levels. Pass ids")
    return text


def _depth(text: str) -> int:
    steps = ((found in "[{") - (found in "]}") for found in _BRACKETS.findall(text))
    return max(accumulate(steps))
