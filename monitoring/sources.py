"""Where the figures come from: `MONITORING_SOURCES`, a dotted path for each source that there is.

`outbox` is called without arguments and returns

    {"queues": {queue: {"pending", "scheduled", "blocked", "published", "running": int,
                        "oldest_pending_age_s": float, "oldest_repeated_age_s": float,
                        "unusable": str (why the broker takes nothing for it, '' if it does), "unusable_for_s": float}},
     "done_last_minute": {queue: int}, "failed_last_minute": {queue: int}, "avg_latency_ms": {queue: float},
     "totals": {queue: {"enqueued": int, "done": int, "latency_s": float, "buckets": {upper bound in s: int}}},  (ever)
     "skipped": {reason: int}, "retries": int,                                            (ever; of the kept)
     "workers": {"count": int, "lately": int, "concurrency": int, "active": int, "memory_bytes": int}}

and `dlq`

    {"open": int, "grown_last_hour": int, "oldest_age_s": float | None, "replays": {outcome: int},
     "by_queue": [{"queue": str, "task": str, "state": str, "count": int}],      (the unresolved)
     "dead_lettered": [{"queue": str, "task": str, "exception": str, "count": int}]}

and `findings`, what a comparison with the outside world found and has not seen mended

    {"open": {kind: int}, "for_a_person": {kind: int}}                  (the latter: of them, what nothing mends by itself)

What a source leaves out counts as 0. A queue is reported although it is empty when `MONITORING_QUEUES` names it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from django.utils.module_loading import import_string

from monitoring import conf

OUTBOX = "outbox"
DLQ = "dlq"
FINDINGS = "findings"
ALL = (OUTBOX, DLQ, FINDINGS)


def read(name: str) -> Mapping[str, Any]:
    """The figures of one source, {} when the setting does not name it; raises what the source raises."""
    path = conf.sources().get(name)
    return import_string(path)() if path else {}


def merged(known: Iterable[str], *figures: Mapping[str, Any]) -> list[str]:
    """The known queues in their order, then those that only the figures know."""
    names = dict.fromkeys(known)
    for mapping in figures:
        names.update(dict.fromkeys(sorted(mapping)))
    return list(names)
