"""Where the figures come from: `MONITORING_SOURCES`, a dotted path for each source that there is.

`outbox` is called without arguments and returns

    {"queues": {queue: {"pending", "scheduled", "paused", "blocked", "published", "running": int,
                        "oldest_pending_age_s": float, "oldest_repeated_age_s": float,
                        "unusable": str (why nothing is published to it, '' if it is), "unusable_for_s": float}},
     "done_last_minute": {queue: int}, "failed_last_minute": {queue: int}, "avg_latency_ms": {queue: float},
     "totals": {queue: {"enqueued": int, "done": int, "latency_s": float, "buckets": {upper bound in s: int}}},  (ever)
     "skipped": {reason: int}, "retries": int,                                            (ever; of the kept)
     "workers": {"count": int, "lately": int, "concurrency": int, "active": int, "memory_bytes": int},
     "relays": {"expected": bool, "count": int, "lately": int}, "beats": the same,
     "tasks": {task: {"retrying": int, "failed": int, "done": int}},   (open after a failed attempt; of the last 5 minutes)
     "paused_tasks": {task: {"reason": str, "for_s": float, "set_aside": int}}}   (by an operator, and the messages that wait)

and `dlq`

    {"open": int, "grown_last_hour": int, "oldest_age_s": float | None, "replays": {outcome: int},
     "by_queue": [{"queue": str, "task": str, "state": str, "count": int}],      (the unresolved)
     "dead_lettered": [{"queue": str, "task": str, "exception": str, "count": int}]}

and `findings`, what a comparison with the outside world found and has not seen repaired

    {"open": {kind: int}, "for_a_person": {kind: int}}                  (the latter: those that need a person)

and `circuits`, circuit breakers, of how many processes each is open

    {"open": {circuit: int}}

and `orders`, what the business has to finish: of what is not final yet

    {"oldest_age_s": float | None, "oldest": str}                       (the latter: what an alert calls it)

and `webhooks`

    {"deliveries": {status: int}}                                       (of the newest)

What a source leaves out counts as 0. A queue is reported although it is empty when `MONITORING_QUEUES` names it.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from django.utils.module_loading import import_string

from monitoring import conf

logger = logging.getLogger(__name__)

OUTBOX = "outbox"
DLQ = "dlq"
FINDINGS = "findings"
CIRCUITS = "circuits"
ORDERS = "orders"
WEBHOOKS = "webhooks"
ALL = (OUTBOX, DLQ, FINDINGS, CIRCUITS, ORDERS, WEBHOOKS)


def read(name: str) -> Mapping[str, Any]:
    """The figures of one source, {} when the setting does not name it; raises what the source raises."""
    path = conf.sources().get(name)
    return import_string(path)() if path else {}


def read_all() -> tuple[dict[str, Mapping[str, Any]], dict[str, str]]:
    """The figures of each source that the setting names, and why those that could not be read failed, in one line."""
    readings: dict[str, Mapping[str, Any]] = {}
    unreadable: dict[str, str] = {}
    for name in (name for name in ALL if name in conf.sources()):
        try:
            readings[name] = read(name)
        except Exception as error:
            logger.exception("the monitoring source %s could not be read", name)
            lines = str(error).strip().splitlines() or [""]
            unreadable[name] = f"{type(error).__name__}: {lines[0]}"[:200]
    return readings, unreadable


def merged(known: Iterable[str], *figures: Mapping[str, Any]) -> list[str]:
    """The known queues in their order, then those that only the figures know."""
    names = dict.fromkeys(known)
    for mapping in figures:
        names.update(dict.fromkeys(sorted(mapping)))
    return list(names)
