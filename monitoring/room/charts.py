"""The charts of the control room, as numbers: drawn from the samples, in at most `POINTS` points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from monitoring import alerts, samples

#: What can be looked at -> its seconds. A point of the longest stands for six minutes.
SPANS = {"15 min": 900, "1 h": 3_600, "24 h": 86_400}
POINTS = 240

Sampled = tuple[int, Mapping[str, float]]


@dataclass(frozen=True)
class Chart:
    """`lines`: label -> series. `limit`: the threshold of an alert that is drawn beside them, '' for none."""

    title: str
    unit: str
    lines: Mapping[str, str]
    limit: str = ""


CHARTS = (
    Chart("Orders", "a minute", {"placed": "orders_a_minute"}),
    Chart("Messages", "a second", {"in": "messages_in_total", "done": "messages_done_total"}),
    Chart(
        "Latency from enqueueing to done",
        "seconds",
        {"p50": "latency_p50_s", "p95": "latency_p95_s", "p99": "latency_p99_s"},
    ),
    Chart(
        "Messages that wait",
        "",
        {"could run now": "waiting", "not handed to the broker": "pending", "scheduled": "scheduled"},
        limit="max_depth",
    ),
    Chart(
        "Dead letters",
        "",
        {
            "unresolved": "dead_letters",
            "in, a minute": "dead_letters_in_a_minute",
            "out, a minute": "dead_letters_out_a_minute",
        },
        limit="max_dead_letters",
    ),
)


def charts(span: str) -> dict[str, Any]:
    """The charts of one of `SPANS`: {"at": [seconds since the epoch], "charts": [{"title", "unit", "limit", "lines"}]}.

    A line is {"label", "values"}, with a value for each point and None where there was no sample. A chart none of whose
    series was ever sampled is left out.
    """
    seconds = SPANS[span]
    step = max(samples.EVERY_S, seconds // POINTS)
    sampled = samples.since(seconds + step)
    buckets = [(tick * step, list(found)) for tick, found in groupby(sampled, key=lambda row: row[0] // step)]
    thresholds = alerts.configured()
    drawn = []
    for chart in CHARTS:
        lines = [
            {"label": label, "values": list(_values(series, buckets))}
            for label, series in chart.lines.items()
            if any(series in figures for _, figures in sampled)
        ]
        if lines:
            limit = getattr(thresholds, chart.limit) if chart.limit else None
            drawn.append({"title": chart.title, "unit": chart.unit, "limit": limit, "lines": lines})
    return {"at": [at for at, _ in buckets], "charts": drawn}


def _values(series: str, buckets: list[tuple[int, list[Sampled]]]) -> Iterator[float | None]:
    """Of each bucket the largest value; of a total the rate since the sample before, which may be some buckets ago."""
    before: tuple[int, float] | None = None
    for _, sampled in buckets:
        found = [(tick, figures[series]) for tick, figures in sampled if series in figures]
        if not found:
            yield None
        elif not series.endswith(samples.TOTAL):
            yield max(value for _, value in found)
        else:
            tick, value = found[-1]
            began, start = before or found[0]
            # A total falls where somebody has emptied the table.
            yield max(0.0, (value - start) / (tick - began)) if tick > began else None
            before = tick, value
