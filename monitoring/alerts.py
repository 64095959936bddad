"""When somebody should look: rules over a snapshot, with thresholds that can be set.

    for alert in evaluate(QueueMonitor().snapshot()):
        page(alert.name, alert.message)

Pure: evaluating sends nothing and remembers nothing, so each caller (the metrics, a cron job, a test)
gets the same answer, and how long a condition must last before it pages stays with the alert manager.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from monitoring import conf, sources
from monitoring.snapshot import Snapshot


@dataclass(frozen=True)
class Thresholds:
    """The values beyond which a rule fires; `MONITORING_THRESHOLDS` overrides single fields."""

    #: Messages that wait, over all queues.
    max_depth: int = 10_000
    #: Completed messages that this installation expects; 0: not known, and the rule does not fire.
    expected_per_minute: float = 0.0
    #: Of the expected rate: half of it is no fluctuation any more.
    min_rate_share: float = 0.5
    #: Messages that died of all that ended in the last minute.
    max_error_rate: float = 0.05
    #: Open dead letters.
    max_dead_letters: int = 100
    #: Open dead letters more than an hour ago: at this pace `max_dead_letters` is reached within a working day.
    max_dead_letter_growth: int = 12
    #: Longer than any lease plus its rescue: what waits this long is not picked up at all.
    max_pending_age_s: float = 900.0
    #: Longer than the longest schedule of retries that is usual, three days for an endpoint that is down over a
    #: weekend: what is older is put off again and again, and no attempt of it will ever be the last.
    max_repeated_age_s: float = 345_600.0
    #: The same for queues whose schedules are shorter.
    max_repeated_age_by_queue: Mapping[str, float] = field(default_factory=dict)
    #: Queues that the broker takes nothing for, while it works for others.
    max_unusable_queues: int = 0
    #: Workers that were there lately, did not end in order, and have not come back.
    max_workers_lost: int = 0
    #: A day: longer than any desk is unattended.
    max_dead_letter_age_s: float = 86_400.0
    #: Differences from the outside world that nothing mends by itself: each is somebody's money.
    max_findings: int = 0


@dataclass(frozen=True)
class Alert:
    """A rule that fires: `value` is beyond `threshold`, and `message` says what that means."""

    name: str
    message: str
    value: float
    threshold: float


Rule = Callable[[Snapshot, Thresholds], Alert | None]


def configured() -> Thresholds:
    """The defaults with this installation's overrides; TypeError names a threshold that does not exist."""
    return Thresholds(**conf.thresholds())


def evaluate(snapshot: Snapshot, thresholds: Thresholds | None = None) -> list[Alert]:
    """The alerts that fire, in the order of `RULES`; [] when all is well."""
    thresholds = thresholds or configured()
    return [alert for rule in RULES.values() if (alert := rule(snapshot, thresholds))]


def queue_depth(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    if snapshot.depth <= thresholds.max_depth:
        return None
    deepest = max(snapshot.queues.values(), key=lambda queue: queue.depth)
    message = f"Queue backing up: {snapshot.depth} messages wait, {deepest.depth} of them in {deepest.name}"
    return Alert("queue_depth", message, snapshot.depth, thresholds.max_depth)


def processing_rate(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    """Fires only while work waits: a quiet night has a low rate too, and is no reason to page."""
    wanted = thresholds.expected_per_minute * thresholds.min_rate_share
    per_minute = snapshot.done_last_minute
    if per_minute >= wanted or snapshot.depth == 0:
        return None
    message = (
        f"Processing rate dropped: {per_minute} a minute of {thresholds.expected_per_minute:.0f} expected, "
        f"while {snapshot.depth} messages wait"
    )
    return Alert("processing_rate", message, per_minute, wanted)


def error_rate(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    if snapshot.error_rate <= thresholds.max_error_rate:
        return None
    message = f"High job error rate: {snapshot.error_rate:.1%} of what ended in the last minute died"
    return Alert("error_rate", message, snapshot.error_rate, thresholds.max_error_rate)


def dead_letters(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    if snapshot.dead_letter_count <= thresholds.max_dead_letters:
        return None
    message = f"DLQ has {snapshot.dead_letter_count} entries"
    return Alert("dead_letters", message, snapshot.dead_letter_count, thresholds.max_dead_letters)


def dead_letters_growing(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    grown = snapshot.dead_letters_grown
    if grown <= thresholds.max_dead_letter_growth:
        return None
    message = f"DLQ is growing: {grown} entries more than an hour ago, {snapshot.dead_letter_count} in all"
    return Alert("dead_letters_growing", message, grown, thresholds.max_dead_letter_growth)


def dead_letter_age(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    age = snapshot.oldest_dead_letter_age_s
    if age <= thresholds.max_dead_letter_age_s:
        return None
    message = f"The oldest dead letter has waited {age / 3600:.0f} h for a decision"
    return Alert("dead_letter_age", message, age, thresholds.max_dead_letter_age_s)


def findings(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    counts = {kind: count for kind, count in snapshot.findings_for_a_person.items() if count}
    total = sum(counts.values())
    if total <= thresholds.max_findings:
        return None
    kinds = ", ".join(f"{kind} ({count})" for kind, count in counts.items())
    message = f"Ledgers disagree: {total} findings need a person: {kinds}"
    return Alert("findings", message, total, thresholds.max_findings)


def pending_age(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    age = snapshot.oldest_pending_age_s
    if age <= thresholds.max_pending_age_s:
        return None
    queue = max(snapshot.queues.values(), key=lambda queue: queue.oldest_pending_age_s)
    message = (
        f"Stuck: the oldest message in {queue.name} has waited {age / 60:.0f} min; is its worker running?"
    )
    return Alert("pending_age", message, age, thresholds.max_pending_age_s)


def repeated_age(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    """For what `pending_age` does not see: a message that waits for its next time is no backlog, but may wait for ever."""

    def limit(name: str) -> float:
        return thresholds.max_repeated_age_by_queue.get(name, thresholds.max_repeated_age_s)

    over = [queue for queue in snapshot.queues.values() if queue.oldest_repeated_age_s > limit(queue.name)]
    if not over:
        return None
    worst = max(over, key=lambda queue: queue.oldest_repeated_age_s / limit(queue.name))
    age = worst.oldest_repeated_age_s
    message = f"Put off again and again: a message in {worst.name} was enqueued {age / 3600:.0f} h ago"
    return Alert("repeated_age", message, age, limit(worst.name))


def queue_unusable(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    unusable = [queue for queue in snapshot.queues.values() if queue.unusable]
    if len(unusable) <= thresholds.max_unusable_queues:
        return None
    details = "; ".join(
        f"{queue.name} for {queue.unusable_for_s:.0f} s ({queue.unusable})" for queue in unusable
    )
    message = f"The broker takes no messages for: {details}"
    return Alert("queue_unusable", message, len(unusable), thresholds.max_unusable_queues)


def workers_lost(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    lost = snapshot.workers_lately - snapshot.workers
    if lost <= thresholds.max_workers_lost:
        return None
    message = (
        f"Workers dying: {lost} of {snapshot.workers_lately} have no heartbeat any more and were not ended"
    )
    return Alert("workers_lost", message, lost, thresholds.max_workers_lost)


def workers_gone(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    if snapshot.workers or not snapshot.depth:
        return None
    return Alert("workers_gone", f"No worker has a heartbeat, and {snapshot.depth} messages wait", 0, 1)


#: Where a rule's figures come from when that is not the outbox. Without its source a rule cannot judge; the others can.
OTHER_SOURCE = {
    "dead_letters": sources.DLQ,
    "dead_letters_growing": sources.DLQ,
    "dead_letter_age": sources.DLQ,
    "findings": sources.FINDINGS,
}

RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        queue_depth,
        processing_rate,
        error_rate,
        dead_letters,
        dead_letters_growing,
        dead_letter_age,
        findings,
        pending_age,
        repeated_age,
        queue_unusable,
        workers_lost,
        workers_gone,
    )
}
