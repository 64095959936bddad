"""Prometheus exposition at /metrics: every figure is read from the database at the scrape.

Every web process gives the same answer, a deployment resets nothing, and workers need no port of their own.
Each series that can be named beforehand is there with 0 from the first scrape on, because neither a rule nor
`delta()` sees a rise to 1 of what was not there before. A counter is only what its source counts over all time, rows
that were pruned included (`totals`, `skipped`, `dead_lettered`, `replays`); what is summed over the rows that are kept is a
gauge, because Prometheus reads a counter that falls as a restart. No id and no fingerprint is ever a label, and no name that
somebody sent (a task, a queue, a path): each would be a series for ever.

Each name begins with `holdfast_`, so that no series of another job is meant by it, and one word finds them all. It is written
out, here and in the rules and the dashboard beside this file: in a copy, replace it there.

HTTP answers alone are counted in memory, by each web process. Where several share a port (gunicorn's `--workers`), set
prometheus_client's `PROMETHEUS_MULTIPROC_DIR` to an empty directory: then each of them answers for all.

A source that `MONITORING_SOURCES` does not name has no series. When a source fails, the scrape still answers, with
`holdfast_source_up 0` and without that source's figures: a gap in a graph is honest, a 0 would be a lie, and a failed
scrape would look like a dead web process.
"""

import os
from collections import Counter as Counts
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from monitoring import access, alerts, conf, rules, sources
from monitoring.snapshot import Snapshot, build

UNRESOLVED = ("open", "replaying")
REPLAY_OUTCOMES = ("sent", "succeeded", "failed", "returned")


class DatabaseCollector(Collector):
    """Turns one reading of the sources into metric families."""

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("holdfast_source_up", "1 if this source could be read", labels=["source"])
        readings, unreadable = sources.read_all()
        for name in conf.sources():
            up.add_metric([name], float(name in readings))
        yield up
        snapshot = build(readings, known=conf.queues())
        if sources.OUTBOX in readings:
            yield from _queues(snapshot)
            yield from _totals(snapshot, readings[sources.OUTBOX].get("totals", {}))
        if sources.DLQ in readings:
            yield from _dead_letters(snapshot, readings[sources.DLQ])
        if sources.FINDINGS in readings:
            yield from _findings(snapshot)
        yield from _others(snapshot, readings)
        yield _alerts(readings, unreadable)


def _queues(snapshot: Snapshot) -> Iterator[Metric]:
    gauges = {
        "holdfast_queue_depth": ("Messages that could run now and wait", lambda queue: queue.depth),
        "holdfast_queue_published": (
            "Messages in the broker that no worker has begun",
            lambda queue: queue.published,
        ),
        "holdfast_jobs_processing": ("Messages that a worker is executing", lambda queue: queue.processing),
        "holdfast_jobs_scheduled": (
            "Delayed messages and retries whose time has not come",
            lambda queue: queue.scheduled,
        ),
        "holdfast_jobs_paused": ("Messages of tasks that an operator has paused", lambda queue: queue.paused),
        "holdfast_jobs_processed_per_second": (
            "Completed messages, last minute",
            lambda queue: queue.throughput_per_sec,
        ),
        "holdfast_jobs_failed_per_second": (
            "Messages that died, last minute",
            lambda queue: queue.failed_last_minute / 60,
        ),
        "holdfast_jobs_error_ratio": (
            "Share of the messages ended in the last minute that died",
            lambda queue: queue.error_rate,
        ),
        "holdfast_queue_oldest_pending_age_seconds": (
            "Age of the oldest message that could run",
            lambda queue: queue.oldest_pending_age_s,
        ),
        "holdfast_queue_oldest_repeated_age_seconds": (
            "Age of the oldest message that was run or deferred before and is not done",
            lambda queue: queue.oldest_repeated_age_s,
        ),
        "holdfast_queue_unusable": (
            "1 while nothing is published to this queue: the broker accepts nothing for it, or an operator has paused it",
            lambda queue: float(bool(queue.unusable)),
        ),
    }
    for name, (text, figure) in gauges.items():
        family = GaugeMetricFamily(name, text, labels=["queue"])
        for queue in snapshot.queues.values():
            family.add_metric([queue.name], figure(queue))
        yield family
    yield GaugeMetricFamily("holdfast_workers_up", "Workers with a heartbeat", snapshot.workers)
    yield GaugeMetricFamily(
        "holdfast_workers_lately",
        "Most workers at one time in the last minutes",
        snapshot.workers_lately,
    )
    yield GaugeMetricFamily(
        "holdfast_workers_active", "Processes that execute a message", snapshot.workers_active
    )
    yield GaugeMetricFamily(
        "holdfast_workers_idle", "Processes that wait for a message", snapshot.workers_idle
    )
    yield GaugeMetricFamily(
        "holdfast_memory_usage",
        "Resident memory of the workers in bytes, 0 where they cannot tell",
        snapshot.memory_bytes,
    )
    for role, daemons in (("relay", snapshot.relays), ("beat", snapshot.beats)):
        yield GaugeMetricFamily(
            f"holdfast_{role}_up", f"Processes of {role} with a sign of life", daemons.count
        )
    retrying = GaugeMetricFamily(
        "holdfast_jobs_retrying",
        "Open messages whose last attempt failed, of tasks that have any",
        labels=["task"],
    )
    for task, ran in snapshot.tasks.items():
        retrying.add_metric([task], ran.retrying)
    yield retrying
    skipped = CounterMetricFamily(
        "holdfast_outbox_copies_skipped", "Delivered copies that were skipped", labels=["reason"]
    )
    for reason, count in snapshot.copies_skipped.items():
        skipped.add_metric([reason], count)
    yield skipped
    # A sum over the rows that are kept: retention makes it fall, and that is no counter.
    yield GaugeMetricFamily(
        "holdfast_outbox_runs_repeated",
        "Retries, deferrals and replays of the messages that are kept",
        snapshot.retries,
    )


def _totals(snapshot: Snapshot, totals: Mapping[str, Any]) -> Iterator[Metric]:
    """Since the first message ever: the source keeps them when it prunes its rows."""
    enqueued = CounterMetricFamily("holdfast_jobs_enqueued", "Messages that were enqueued", labels=["queue"])
    processed = CounterMetricFamily("holdfast_jobs_processed", "Messages that completed", labels=["queue"])
    latency = HistogramMetricFamily(
        "holdfast_processing_latency_seconds", "From enqueueing to completion", labels=["queue"]
    )
    for queue in sources.merged(snapshot.queues, totals):
        total = totals.get(queue, {})
        done = total.get("done", 0)
        enqueued.add_metric([queue], total.get("enqueued", 0))
        processed.add_metric([queue], done)
        buckets = [(str(float(bound)), count) for bound, count in sorted(total.get("buckets", {}).items())]
        latency.add_metric([queue], [*buckets, ("+Inf", done)], sum_value=total.get("latency_s", 0.0))
    yield from (enqueued, processed, latency)


def _dead_letters(snapshot: Snapshot, figures: Mapping[str, Any]) -> Iterator[Metric]:
    dead_letters = GaugeMetricFamily(
        "holdfast_dlq_messages", "Unresolved dead letters", labels=["queue", "task", "state"]
    )
    counts = {(queue, "", state): 0 for queue in snapshot.queues for state in UNRESOLVED}
    counts |= {(row["queue"], row["task"], row["state"]): row["count"] for row in figures.get("by_queue", ())}
    for labels, count in counts.items():
        dead_letters.add_metric(list(labels), count)
    yield dead_letters
    yield GaugeMetricFamily("holdfast_dlq_open", "Open dead letters", snapshot.dead_letter_count)
    yield GaugeMetricFamily(
        "holdfast_dlq_grown_last_hour", "Open dead letters more than an hour ago", snapshot.dead_letters_grown
    )
    yield GaugeMetricFamily(
        "holdfast_dlq_oldest_unresolved_age_seconds",
        "Age of the oldest dead letter that can be acted on",
        snapshot.oldest_dead_letter_age_s,
    )
    died = CounterMetricFamily(
        "holdfast_dlq_dead_lettered", "Messages that died", labels=["task", "exception"]
    )
    failed = CounterMetricFamily("holdfast_jobs_failed", "Messages that died", labels=["queue"])
    deaths, failures = Counts({("", ""): 0}), Counts(dict.fromkeys(snapshot.queues, 0))
    for row in figures.get("dead_lettered", ()):
        deaths[row["task"], row["exception"]] += row["count"]
        failures[row["queue"]] += row["count"]
    for died_of, count in deaths.items():
        died.add_metric(list(died_of), count)
    for queue, count in failures.items():
        failed.add_metric([queue], count)
    yield from (died, failed)
    replays = CounterMetricFamily("holdfast_dlq_replays", "Replays by outcome", labels=["outcome"])
    for outcome, count in (dict.fromkeys(REPLAY_OUTCOMES, 0) | dict(figures.get("replays", {}))).items():
        replays.add_metric([outcome], count)
    yield replays


def _findings(snapshot: Snapshot) -> Iterator[Metric]:
    gauges = {
        "holdfast_findings_open": (
            "Differences between the database and the outside world",
            snapshot.findings,
        ),
        "holdfast_findings_for_a_person": (
            "Differences that need a person",
            snapshot.findings_for_a_person,
        ),
    }
    for name, (text, counts) in gauges.items():
        family = GaugeMetricFamily(name, text, labels=["kind"])
        for kind, count in counts.items():
            family.add_metric([kind], count)
        yield family


def _others(snapshot: Snapshot, readings: Collection[str]) -> Iterator[Metric]:
    if sources.CIRCUITS in readings:
        family = GaugeMetricFamily(
            "holdfast_circuit_open", "Processes in which this circuit is open", labels=["circuit"]
        )
        for name, processes in snapshot.open_circuits.items():
            family.add_metric([name], processes)
        yield family
    if sources.ORDERS in readings:
        yield GaugeMetricFamily(
            "holdfast_orders_oldest_open_age_seconds",
            "Age of the oldest order that is not final",
            snapshot.oldest_order_age_s,
        )
    if sources.WEBHOOKS in readings:
        family = GaugeMetricFamily(
            "holdfast_webhooks_deliveries", "The newest webhook deliveries by status", labels=["status"]
        )
        for status, count in snapshot.webhook_deliveries.items():
            family.add_metric([status], count)
        yield family


def _alerts(readings: Mapping[str, Mapping[str, Any]], unreadable: Mapping[str, str]) -> Metric:
    """Of the rules whose source could be read."""
    firing = {alert.name for alert in alerts.judge(readings, unreadable).alerts}
    family = GaugeMetricFamily("holdfast_alert_firing", "1 while this rule fires", labels=["alert"])
    for name in rules.RULES:
        source = rules.OTHER_SOURCE.get(name, sources.OUTBOX)
        if source in readings or (not source and conf.sources()):
            family.add_metric([name], float(name in firing))
    return family


#: The one figure that no database has. Counted by each process for itself, as Prometheus expects it: it falls with a restart.
RESPONSES = Counter(
    "holdfast_http_responses", "HTTP answers by the class of their status", ["status_class"], registry=None
)
for _number in range(1, 6):
    RESPONSES.labels(f"{_number}xx")

registry = CollectorRegistry(auto_describe=False)
registry.register(DatabaseCollector())
if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    MultiProcessCollector(registry)
else:
    registry.register(RESPONSES)


def metrics(request: HttpRequest) -> HttpResponse:
    """GET /metrics in Prometheus's text format; 401 without the Bearer token of `MONITORING_METRICS_TOKEN`, if that is set."""
    if refused := access.refused(request):
        return refused
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
