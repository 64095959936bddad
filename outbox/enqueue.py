"""Enqueueing: a message is a row of the caller's transaction, so it exists if and only if its cause does.

Idea: transactional outbox (Richardson, microservices.io); one statement a call, whatever the number of messages.
"""

from __future__ import annotations

import inspect
import threading
import uuid
from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakSet

from celery import Task, current_app
from celery.canvas import Signature
from celery.result import EagerResult
from django.db import IntegrityError, transaction

from outbox import conf, context, options, payload, rows
from outbox.broker.envelope import REQUEST_ID_HEADER, TRACEPARENT_HEADER
from outbox.errors import EnqueueError, UnknownQueue
from outbox.rows import NewMessage

_importing = threading.Lock()
#: The applications whose task modules are imported.
_imported: WeakSet[Any] = WeakSet()


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
    with the same `dedup_key` is open, no second one is written; the id returned then belongs to no message.
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
    new = [new_message(signature, given) for signature in signatures]
    ids = [row.message_id for row in new]
    if current_app.conf.task_always_eager:
        for row in new:
            run_eagerly(row)
        return ids
    run = context.current()
    if run is not None:
        new = rows.unwritten(new, run.children, now=context.in_own_transaction())
    if run is not None and not context.in_own_transaction():
        if run.settled is not None:
            raise EnqueueError(
                "the running message has settled: enqueue it in the block of `outbox.settling`, or before"
            )
        run.children.update((row.message_id, row) for row in new)
    else:
        _insert(new)
    return ids


def run_eagerly(row: NewMessage) -> EagerResult[Any]:
    """Run it at once, as Celery's `task_always_eager` does; what is returned has its value."""
    arguments = payload.decoded(row.args), payload.decoded(row.kwargs)
    return registered(row.task).apply(*arguments, task_id=str(row.message_id))


def _insert(new: list[NewMessage]) -> None:
    try:
        rows.insert(new)
    except IntegrityError as error:
        given = [str(row.message_id) for row in new if row.id_given]
        if not given:
            raise
        raise EnqueueError(f"{new[0].task}: there is a message {' or '.join(given[:3])} already") from error


def enqueue_unique(signature: Signature, *, dedup_key: str, **options: Any) -> uuid.UUID | None:
    """`enqueue`, unless an open message has this `dedup_key`: then None. The options are those of `enqueue`."""
    # In a transaction of its own: inside a running task it would be written only when that task settles, and whether it
    # is a duplicate could not be told now.
    with transaction.atomic():
        message_id = enqueue(signature, dedup_key=dedup_key, **options)
        return None if rows.held_key(message_id) is None else message_id


def emit(
    event: str, /, *, ordering_key: str = "", correlation_id: str | None = None, **kwargs: Any
) -> list[uuid.UUID]:
    """Enqueue one message for each task that `OUTBOX_EVENTS` names for this event, with these arguments.

    `ordering_key` is for those of the tasks that are `ordered`: the others of the event run side by side.

    Raises EnqueueError when the setting does not know the event, so that a misspelt one is not lost.
    """
    try:
        names = conf.events()[event]
    except KeyError:
        raise EnqueueError(f"event {event!r} is not in OUTBOX_EVENTS") from None
    signatures = []
    for name in names:
        task = registered(name)
        given: dict[str, Any] = {"ordering_key": ordering_key} if ordering_key != "" and task.ordered else {}
        signatures.append(task.signature(kwargs=kwargs, **given))
    return enqueue_many(signatures, correlation_id=correlation_id)


def new_message(signature: Signature, overrides: dict[str, Any]) -> NewMessage:
    """The row of this call, checked. `overrides`: options that win over those of the signature. Raises EnqueueError."""
    if not isinstance(signature, Signature):
        raise EnqueueError(
            f"enqueue takes a task signature such as task.s(1), not {type(signature).__name__}"
        )
    if signature.subtask_type:
        raise EnqueueError(
            f"a {signature.subtask_type} cannot be enqueued: enqueue the next step from the task before it, "
            "in the transaction of that task's effect"
        )
    task = registered(str(signature.task))
    given = options.read(task, {**signature.options, **overrides})
    try:
        # What Celery's own `delay` checks: here a call that cannot succeed would become a dead letter later.
        if task.typing:
            # Only a task that was made of a function has this.
            check = getattr(task, "__header__", None) or inspect.signature(task.run).bind
            check(*signature.args, **signature.kwargs)
    except TypeError as error:
        raise EnqueueError(f"{task.name}: {error}") from None
    name = queue_of(given)
    run = context.current()
    correlation = given.get("correlation_id")
    if correlation is None:
        correlation = run.correlation_id if run else ""
    headers = given.get("headers") or {}
    if not isinstance(headers, Mapping):
        raise EnqueueError(f"{task.name}: headers must be a mapping, not {type(headers).__name__}")
    origin = {REQUEST_ID_HEADER: context.request_id(), TRACEPARENT_HEADER: context.traceparent()}
    headers = {**{name: value for name, value in origin.items() if value}, **headers}
    if run:
        headers = {**headers, "causation_id": str(run.message_id)}
    return NewMessage(
        message_id=payload.message_id(task.name, given["task_id"]) if "task_id" in given else uuid.uuid4(),
        task=task.name,
        args=payload.encoded(task.name, "args", list(signature.args), objects=True),
        kwargs=payload.encoded(task.name, "kwargs", dict(signature.kwargs), objects=True),
        headers=payload.encoded(task.name, "headers", headers, payload.MAX_HEADERS_BYTES, payload.MAX_DEPTH),
        correlation_id=payload.key(task.name, "correlation_id", correlation),
        queue=name,
        ordering_key=payload.key(task.name, "ordering_key", given.get("ordering_key", "")),
        passes_over_dead=bool(task.passes_over_dead),
        dedup_key=payload.key(task.name, "dedup_key", given.get("dedup_key", "")),
        delay_s=payload.seconds(task.name, given.get("countdown", 0.0)),
        replays=0,
        id_given="task_id" in given,
    )


def queue_of(given: Mapping[str, Any]) -> str:
    """The queue that these options lead to. Raises UnknownQueue."""
    name: str = given["queue"] or conf.default_queue()
    if name not in (known := conf.queues()):
        raise UnknownQueue(name, known)
    return name


def import_tasks() -> None:
    """Import the task modules, as a worker does at its start: a web process or a command has those that it happened to import.

    Once: Celery would set up Django anew each time, with its logging and its checks. A thread that asks meanwhile waits, or it
    would find no task.
    """
    app = current_app._get_current_object()
    with _importing:
        if app not in _imported:
            app.loader.import_default_modules()
            _imported.add(app)


def registered(name: str) -> Task:
    """The task of this name. Raises EnqueueError if this deployment has none."""
    task = current_app.tasks.get(name)
    if task is None:
        import_tasks()
        task = current_app.tasks.get(name)
    if task is None:
        raise EnqueueError(f"task {name!r} is not registered")
    return task


def task_names() -> list[str]:
    """The tasks of this deployment that messages name; of Celery's own those are `map` and `starmap`."""
    import_tasks()
    maps = "celery.map", "celery.starmap"
    return sorted(name for name in current_app.tasks if name in maps or not name.startswith("celery."))


def check_task(name: str) -> None:
    """Raises EnqueueError, which names those that there are, for a name that is none of them."""
    if name not in (names := task_names()):
        raise EnqueueError(f"there is no task {name!r}; the tasks are {', '.join(names)}")
