"""The state of the whole system at one moment, as one object.

snapshot = QueueMonitor().snapshot()
snapshot.depth, snapshot.throughput_per_sec, snapshot.avg_latency_ms, snapshot.error_rate, snapshot.dead_letter_count
snapshot.queues["critical"].depth
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.utils import timezone

from monitoring import conf, sources


@dataclass(frozen=True)
class QueueSnapshot:
    """One queue. Rates and latency are those of the last minute."""

    name: str
    pending: int = 0
    blocked: int = 0
    published: int = 0
    scheduled: int = 0
    #: Of tasks that an operator has paused.
    paused: int = 0
    processing: int = 0
    done_last_minute: int = 0
    failed_last_minute: int = 0
    avg_latency_ms: float = 0.0
    oldest_pending_age_s: float = 0.0
    #: Since it was enqueued, of the oldest message that was run, or deferred, before and is still not done.
    oldest_repeated_age_s: float = 0.0
    #: Why the broker takes nothing for this queue, '' where it does, and for how long it has not.
    unusable: str = ""
    unusable_for_s: float = 0.0

    @property
    def depth(self) -> int:
        """Messages that could run now and wait: in the table, behind their group's head, or in the broker.

        Scheduled ones are not in it: a retry in an hour is no backlog, however many there are.
        """
        return self.pending + self.blocked + self.published

    @property
    def throughput_per_sec(self) -> float:
        """Messages completed per second."""
        return self.done_last_minute / 60

    @property
    def error_rate(self) -> float:
        """Messages that died of all that ended, 0 to 1; 0 when none ended. A retry is not an end."""
        return _rate(self.failed_last_minute, self.done_last_minute)


@dataclass(frozen=True)
class Daemons:
    """The relays, or the beats: whether one must be there, how many live, and the most there were lately, as of workers."""

    expected: bool = False
    count: int = 0
    lately: int = 0


@dataclass(frozen=True)
class TaskSnapshot:
    """One task. `retrying`: open messages whose last attempt failed; of them `failed` did so in the last five minutes, in
    which `done` completed.
    """

    retrying: int = 0
    failed: int = 0
    done: int = 0


@dataclass(frozen=True)
class PausedTask:
    """A task of which nothing is published: who paused it and why, for how long, and how many messages wait for the resume."""

    reason: str = ""
    for_s: float = 0.0
    set_aside: int = 0


@dataclass(frozen=True)
class Snapshot:
    """The whole system at `taken_at`; the totals are those of its queues.

    `workers` have a heartbeat; of their processes `workers_active` run a message, `workers_idle` none. `workers_lately`
    is the most there were at one moment of the last minutes, without those that were ended in order.
    `copies_skipped` counts by reason the delivered copies that were skipped, ever.
    `dead_letters_grown` is by how many the open dead letters have grown in the last hour; negative when they shrank.
    `findings` counts by kind what differs from the outside world, `findings_for_a_person` those of them that need a
    person. `open_circuits` says of each circuit in how many processes it is open. `oldest_order` is the one that has
    been open for longest. `unreadable` says of each source that could not be read why.
    """

    taken_at: datetime
    queues: Mapping[str, QueueSnapshot]
    dead_letter_count: int = 0
    dead_letters_grown: int = 0
    oldest_dead_letter_age_s: float = 0.0
    findings: Mapping[str, int] = field(default_factory=dict)
    findings_for_a_person: Mapping[str, int] = field(default_factory=dict)
    copies_skipped: Mapping[str, int] = field(default_factory=dict)
    retries: int = 0
    workers: int = 0
    workers_lately: int = 0
    workers_active: int = 0
    workers_idle: int = 0
    memory_bytes: int = 0
    #: Messages completed a minute in the last hours; 0 where that is not known.
    usual_per_minute: float = 0.0
    relays: Daemons = Daemons()
    beats: Daemons = Daemons()
    tasks: Mapping[str, TaskSnapshot] = field(default_factory=dict)
    paused_tasks: Mapping[str, PausedTask] = field(default_factory=dict)
    open_circuits: Mapping[str, int] = field(default_factory=dict)
    oldest_order_age_s: float = 0.0
    oldest_order: str = ""
    webhook_deliveries: Mapping[str, int] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)

    @property
    def depth(self) -> int:
        """Messages that could run now and wait, over all queues."""
        return sum(queue.depth for queue in self.queues.values())

    @property
    def processing(self) -> int:
        """Messages that a worker is executing."""
        return sum(queue.processing for queue in self.queues.values())

    @property
    def scheduled(self) -> int:
        """Messages whose time has not come: delays and retries."""
        return sum(queue.scheduled for queue in self.queues.values())

    @property
    def throughput_per_sec(self) -> float:
        """Messages completed per second, over the last minute."""
        return sum(queue.throughput_per_sec for queue in self.queues.values())

    @property
    def done_last_minute(self) -> int:
        """Messages completed in the last minute."""
        return sum(queue.done_last_minute for queue in self.queues.values())

    @property
    def avg_latency_ms(self) -> float:
        """Milliseconds from enqueueing to completion, over what completed in the last minute."""
        spent = sum(queue.avg_latency_ms * queue.done_last_minute for queue in self.queues.values())
        return spent / self.done_last_minute if self.done_last_minute else 0.0

    @property
    def error_rate(self) -> float:
        """Messages that died of all that ended in the last minute, 0 to 1; 0 when none ended."""
        return _rate(sum(queue.failed_last_minute for queue in self.queues.values()), self.done_last_minute)

    @property
    def oldest_pending_age_s(self) -> float:
        """How long the oldest message that could run has been waiting, in seconds."""
        return max((queue.oldest_pending_age_s for queue in self.queues.values()), default=0.0)


class QueueMonitor:
    """Reads the sources; holds no state, so any process gives the same answer.

    `queues`: those to report although nothing is in them (default: `MONITORING_QUEUES`).
    """

    def __init__(self, queues: Sequence[str] | None = None) -> None:
        self._known = conf.queues() if queues is None else tuple(queues)

    def snapshot(self) -> Snapshot:
        """What is true now; raises what a source raises (the database is down)."""
        return build({name: sources.read(name) for name in sources.ALL}, known=self._known)


def build(
    figures: Mapping[str, Mapping[str, Any]],
    *,
    known: Sequence[str] = (),
    unreadable: Mapping[str, str] | None = None,
    usual_per_minute: float = 0.0,
) -> Snapshot:
    """The snapshot that the figures of these sources, by name, amount to."""
    outbox, dlq, findings, circuits, orders, webhooks = (figures.get(name, {}) for name in sources.ALL)
    counts = outbox.get("queues", {})
    done, failed = outbox.get("done_last_minute", {}), outbox.get("failed_last_minute", {})
    latency, workers = outbox.get("avg_latency_ms", {}), outbox.get("workers", {})
    queues = {}
    for name in sources.merged(known, counts, done, failed):
        row = counts.get(name, {})
        queues[name] = QueueSnapshot(
            name=name,
            pending=row.get("pending", 0),
            blocked=row.get("blocked", 0),
            published=row.get("published", 0),
            scheduled=row.get("scheduled", 0),
            paused=row.get("paused", 0),
            processing=row.get("running", 0),
            done_last_minute=done.get(name, 0),
            failed_last_minute=failed.get(name, 0),
            avg_latency_ms=latency.get(name) or 0.0,
            oldest_pending_age_s=row.get("oldest_pending_age_s") or 0.0,
            oldest_repeated_age_s=row.get("oldest_repeated_age_s") or 0.0,
            unusable=row.get("unusable", ""),
            unusable_for_s=row.get("unusable_for_s", 0.0),
        )
    return Snapshot(
        taken_at=timezone.now(),
        queues=queues,
        dead_letter_count=dlq.get("open", 0),
        dead_letters_grown=dlq.get("grown_last_hour", 0),
        oldest_dead_letter_age_s=dlq.get("oldest_age_s") or 0.0,
        findings=findings.get("open", {}),
        findings_for_a_person=findings.get("for_a_person", {}),
        copies_skipped=outbox.get("skipped", {}),
        retries=outbox.get("retries", 0),
        workers=workers.get("count", 0),
        workers_lately=workers.get("lately", 0),
        workers_active=workers.get("active", 0),
        memory_bytes=workers.get("memory_bytes", 0),
        workers_idle=max(0, workers.get("concurrency", 0) - workers.get("active", 0)),
        relays=Daemons(**outbox.get("relays", {})),
        beats=Daemons(**outbox.get("beats", {})),
        tasks={task: TaskSnapshot(**counted) for task, counted in outbox.get("tasks", {}).items()},
        paused_tasks={task: PausedTask(**pause) for task, pause in outbox.get("paused_tasks", {}).items()},
        open_circuits=circuits.get("open", {}),
        oldest_order_age_s=orders.get("oldest_age_s") or 0.0,
        oldest_order=orders.get("oldest", ""),
        webhook_deliveries=webhooks.get("deliveries", {}),
        unreadable=unreadable or {},
        usual_per_minute=usual_per_minute,
    )


def _rate(failed: int, done: int) -> float:
    return failed / (failed + done) if failed else 0.0
