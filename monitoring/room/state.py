"""How the system is now, as the control room shows it: one mapping that can be JSON."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from django.utils import timezone
from django.utils.module_loading import import_string

from monitoring import alerts, conf, samples, sources
from monitoring.models import Sample
from monitoring.rules import Alert
from monitoring.snapshot import Snapshot, build

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Without a sample for so long, those who take them have stopped.
SAMPLES_STOPPED_S = 4 * samples.EVERY_S
#: Rows that break an invariant and are named; the rest is a number.
EXAMPLES = 5


def state() -> dict[str, Any]:
    """What the page shows, but for the charts. What cannot be read is named in `unread`, and the rest is shown."""
    unread: list[str] = []

    def read(name: str, callable_: Callable[[], T]) -> T | None:
        try:
            return callable_()
        except Exception:
            log.exception("the control room could not read %s", name)
            unread.append(name)
            return None

    readings, unreadable = sources.read_all()
    unread += unreadable
    snapshot = build(readings, known=conf.queues(), unreadable=unreadable)
    firing = alerts.with_times(alerts.judge(readings, unreadable).alerts)
    tables = [
        {"title": title, "rows": rows}
        for title, path in conf.tables().items()
        if (rows := read(title, import_string(path))) is not None
    ]
    invariants = [
        _invariant(name, broken)
        for path in conf.invariants()
        for name, broken in (read(path, import_string(path)) or {}).items()
    ]
    newest = Sample.objects.order_by("-tick").first()
    broken = [each["name"] for each in invariants if not each["holds"]]
    return {
        "at": timezone.now().isoformat(),
        "well": not (firing or broken or unread),
        "verdict": _verdict(len(firing), len(broken), unread),
        "alerts": [_alert(alert) for alert in firing],
        "figures": _figures(snapshot, readings, newest),
        "tables": [
            {"title": "Queues", "rows": [_queue(queue) for queue in snapshot.queues.values()]},
            *_circuits(snapshot, readings),
            *tables,
        ],
        "invariants": invariants,
        "unread": unread,
        "samples": _samples(newest),
    }


def _verdict(firing: int, broken: int, unread: list[str]) -> str:
    parts = [
        f"{firing} alert{'s' * (firing != 1)}" if firing else "",
        f"{broken} broken invariant{'s' * (broken != 1)}" if broken else "",
        f"no figures of {', '.join(unread)}" if unread else "",
    ]
    return "; ".join(part for part in parts if part) or "All is well"


def _alert(alert: Alert) -> dict[str, Any]:
    return alerts.as_json(alert) | {"value": _number(alert.value), "threshold": _number(alert.threshold)}


def _figures(snapshot: Snapshot, readings: Mapping[str, Any], newest: Sample | None) -> list[dict[str, str]]:
    """Name and value, in the order of the page; the ones of the newest sample only while it is new."""
    sampled = newest.figures if newest and time.time() - newest.tick < SAMPLES_STOPPED_S else {}
    found = {}
    if "orders_a_minute" in sampled:
        found["Orders a minute"] = _number(sampled["orders_a_minute"])
    if sources.OUTBOX in readings:
        pending = sum(queue.pending for queue in snapshot.queues.values())
        found |= {
            "Messages done a second": _number(snapshot.throughput_per_sec),
            "Wait now": f"{snapshot.depth:,} of {alerts.configured().max_depth:,}",
            "Not handed to the broker": f"{pending:,}",
            "Oldest waits for": duration(snapshot.oldest_pending_age_s),
            "Run now": f"{snapshot.processing:,}",
            "Scheduled": f"{snapshot.scheduled:,}",
            "Workers": f"{snapshot.workers:,}",
        }
    for name in ("p50", "p95", "p99"):
        if f"latency_{name}_s" in sampled:
            found[f"Latency {name}"] = duration(sampled[f"latency_{name}_s"])
    if sources.DLQ in readings:
        found["Dead letters"] = f"{snapshot.dead_letter_count:,}"
    return [{"name": name, "value": value} for name, value in found.items()]


def _queue(queue: Any) -> dict[str, Any]:
    return {
        "queue": queue.name,
        "waiting": queue.depth,
        "in the broker": queue.published,
        "running": queue.processing,
        "scheduled": queue.scheduled,
        "oldest waits for": duration(queue.oldest_pending_age_s),
        "done a minute": queue.done_last_minute,
        "died a minute": queue.failed_last_minute,
        "is_well": not queue.unusable,
        "state": queue.unusable
        or "takes messages" + f"; {queue.paused:,} of paused tasks wait" * bool(queue.paused),
    }


def _circuits(snapshot: Snapshot, readings: Mapping[str, Any]) -> list[dict[str, Any]]:
    if sources.CIRCUITS not in readings:
        return []
    rows = [
        {"circuit": name, "open in": f"{count} process{'es' * (count != 1)}", "is_well": False}
        for name, count in snapshot.open_circuits.items()
        if count
    ]
    return [{"title": "Open circuits", "rows": rows}]


def _invariant(name: str, broken: list[str]) -> dict[str, Any]:
    named = ", ".join(broken[:EXAMPLES])
    more = f" and {len(broken) - EXAMPLES} more" if len(broken) > EXAMPLES else ""
    return {"name": name, "holds": not broken, "broken_by": named + more}


def _samples(newest: Sample | None) -> str:
    """Why the charts have no new points; '' while they have."""
    if not conf.series():
        return ""
    if newest is None:
        return "No sample was taken yet: is beat running?"
    age_s = time.time() - newest.tick
    return f"No sample since {duration(age_s)}: is beat running?" if age_s > SAMPLES_STOPPED_S else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.2g}"


def duration(seconds: float) -> str:
    """`0.25 s`, `12 s`, `3 min`, `5 h`, `2 d`."""
    if seconds < 10:
        return f"{seconds:.2g} s" if seconds >= 0.001 else "0 s"
    for size, unit in ((86_400 * 2, "d"), (7_200, "h"), (120, "min")):
        if seconds >= size:
            return f"{seconds / {'d': 86_400, 'h': 3_600, 'min': 60}[unit]:.0f} {unit}"
    return f"{seconds:.0f} s"
