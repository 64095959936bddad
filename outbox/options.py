"""The options that Celery's calls take, and what each becomes here: honoured, ignored, or refused with what to write
instead.

One table for every way of sending: `.delay()`, `.apply_async()`, `send_task()`, signatures, beats and `outbox.enqueue`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from celery.utils.time import maybe_iso8601

from outbox import conf
from outbox.errors import EnqueueError
from outbox.retry_policy import seconds_until

#: They become columns of the row. `eta` becomes a delay; `routing_key` and `exchange` are those of a queue by its name.
HONOURED = frozenset(
    {
        *("queue", "countdown", "eta", "task_id", "headers", "routing_key", "exchange"),
        *("ordering_key", "correlation_id", "dedup_key"),
    }
)
#: They say how Celery would publish, or what it would remember about it; a row has no use for them.
IGNORED = frozenset(
    {
        *("producer", "publisher", "connection", "router", "route_name", "retry", "retry_policy"),
        *("exchange_type", "compression", "delivery_mode", "immediate", "mandatory", "declare", "origin"),
        *("argsrepr", "kwargsrepr", "result_cls", "reply_to", "add_to_parent", "root_id", "parent_id"),
        *("task_type", "replaced_task_nesting"),
        "periodic_task_name",  # django-celery-beat's
    }
)
_NEXT_STEP = "enqueue the next step from the task before it, in the transaction of that task's effect"
_HEADERS = "put it into `headers`"
#: What the outbox cannot keep, and what to write instead.
REFUSED: Mapping[str, str] = {
    "link": _NEXT_STEP,
    "link_error": "failures are dead letters; react to one in the task's `on_failure`",
    "chain": _NEXT_STEP,
    "chord": f"count what has ended in a table; {_NEXT_STEP}",
    "group_id": "a group has no result here; enqueue its tasks by outbox.enqueue_many",
    "group_index": "a group has no result here; enqueue its tasks by outbox.enqueue_many",
    "expires": "check in the task whether it still matters",
    "expiration": "check in the task whether it still matters",
    "priority": "give urgent tasks a queue and workers of their own",
    "time_limit": "set it on the task",
    "soft_time_limit": "set it on the task",
    "ignore_result": "set it on the task",
    "serializer": "arguments are JSON; pass what JSON can express",
    "shadow": _HEADERS,
    "stamped_headers": _HEADERS,
    "retries": "a new message has had none",
}
#: Refused only where the call says something else than its task, whose own value Celery hands in with each call.
_OF_THE_TASK = frozenset({"time_limit", "soft_time_limit", "ignore_result"})


def read(task: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of HONOURED that this call gives, `eta` as `countdown` (seconds). Raises EnqueueError for the others.

    None, and an empty list or mapping, say nothing: Celery hands on what the caller left out.
    """
    given: dict[str, Any] = {}
    refused = {"priority"} if task.priority is not None else set()
    for name, value in options.items():
        if value is None or (isinstance(value, (list, tuple, dict)) and not value):
            continue
        if name in HONOURED:
            given[name] = value
        elif name in REFUSED:
            if not _says_nothing(task, name, value):
                refused.add(name)
        elif name not in IGNORED:
            raise EnqueueError(
                f"{task.name}: the outbox does not know {name}; {_HEADERS} if the task reads it"
            )
    if refused:
        ways = "; ".join(f"`{name}`: {REFUSED[name]}" for name in sorted(refused))
        raise EnqueueError(f"{task.name}: the outbox cannot keep {ways}")
    eta = given.pop("eta", None)
    if eta is not None:
        given.setdefault("countdown", _seconds_until(task, eta))
    exchange, key = given.pop("exchange", None), given.pop("routing_key", None)
    queue = given.setdefault("queue", key or task.queue)
    # A kombu.Queue and a kombu.Exchange have names.
    given["queue"] = queue = getattr(queue, "name", queue)
    for destination in (getattr(exchange, "name", exchange), key):
        if destination and destination != (queue or conf.default_queue()):
            raise EnqueueError(
                f"{task.name}: messages go to queues by name, not to {destination!r}: give `queue`"
            )
    return given


def _says_nothing(task: Any, name: str, value: Any) -> bool:
    if name in _OF_THE_TASK:
        # A task that keeps its result keeps it also where the call asks for none.
        return bool(value == getattr(task, name) or (name == "ignore_result" and value))
    if name in ("expires", "expiration"):
        # Beat gives it to Celery's own clean-up of results, which may well run late.
        return task.name == "celery.backend_cleanup"
    # Redis gives every message the priority 0, which `signature_from_request` finds in the one that runs.
    return (name == "serializer" and value == "json") or (name in ("retries", "priority") and value == 0)


def _seconds_until(task: Any, eta: Any) -> float:
    moment = maybe_iso8601(eta)
    if not isinstance(moment, datetime):
        raise EnqueueError(f"{task.name}: eta must be a datetime, not {eta!r}")
    return seconds_until(moment, task.app.timezone)
