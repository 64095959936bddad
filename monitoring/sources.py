"""Where the figures come from: `settings.MONITORING_SOURCES`, a dotted path per source.

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

What a source leaves out counts as 0. A queue is reported although it is empty when
`settings.MONITORING_QUEUES` or `settings.OUTBOX_QUEUES` names it.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

logger = logging.getLogger(__name__)

OUTBOX = "outbox"
DLQ = "dlq"
FINDINGS = "findings"
ALL = (OUTBOX, DLQ, FINDINGS)


def read(name: str) -> Mapping[str, Any]:
    """The figures of one source, {} when the setting does not name it; raises what the source raises."""
    path = settings.MONITORING_SOURCES.get(name)
    return import_string(path)() if path else {}


def known_queues() -> tuple[str, ...]:
    """The queues that exist although nothing may be in them."""
    return tuple(getattr(settings, "MONITORING_QUEUES", getattr(settings, "OUTBOX_QUEUES", ())))


def merged(known: Iterable[str], *figures: Mapping[str, Any]) -> list[str]:
    """The known queues in their order, then those that only the figures know."""
    names = dict.fromkeys(known)
    for mapping in figures:
        names.update(dict.fromkeys(sorted(mapping)))
    return list(names)
