"""The alert rules: each looks at a snapshot, and says what is wrong and by how much.

Pure functions. What fires now and since when: `monitoring/alerts.py`; to whom it is sent: `monitoring/notices.py`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from monitoring import sources
from monitoring.snapshot import Daemons, QueueSnapshot, Snapshot
from monitoring.thresholds import Thresholds


@dataclass(frozen=True)
class Alert:
    """A rule that fires: `value` is beyond `threshold`, and `text` says what that means.

    `about`: the queues, tasks, ... over the threshold, where the rule judges each of them. `since`: when it was first seen
    firing, None where no sample was taken before. `link`: where it says what to do.
    """

    name: str
    text: str
    value: float
    threshold: float
    about: tuple[str, ...] = ()
    since: datetime | None = None
    link: str = ""


Rule = Callable[[Snapshot, Thresholds], Alert | None]


def queue_depth(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    if snapshot.depth <= thresholds.max_depth:
        return None
    deepest = max(snapshot.queues.values(), key=lambda queue: queue.depth)
    text = f"Queue backing up: {snapshot.depth} messages wait, {deepest.depth} of them in {deepest.name}"
    return Alert("queue_depth", text, snapshot.depth, thresholds.max_depth)


def processing_rate(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    """Fires only while work waits: a quiet night has a low rate too, and is no reason to page."""
    expected = thresholds.expected_per_minute
    if not expected and snapshot.oldest_pending_age_s >= thresholds.min_wait_s:
        usual = snapshot.usual_per_minute
        expected = usual if usual >= thresholds.min_usual_per_minute else 0.0
    wanted = expected * thresholds.min_rate_share
    per_minute = snapshot.done_last_minute
    if per_minute >= wanted or snapshot.depth == 0:
        return None
    text = (
        f"Processing rate dropped: {per_minute} a minute of {expected:.0f} expected, "
        f"waiting messages: {snapshot.depth}"
    )
    return Alert("processing_rate", text, per_minute, wanted)


def error_rate(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    if snapshot.error_rate <= thresholds.max_error_rate:
        return None
    text = f"High job error rate: {snapshot.error_rate:.1%} of what ended in the last minute died"
    return Alert("error_rate", text, snapshot.error_rate, thresholds.max_error_rate)


def dead_letters(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    if snapshot.dead_letter_count <= thresholds.max_dead_letters:
        return None
    text = f"DLQ has {snapshot.dead_letter_count} entries"
    return Alert("dead_letters", text, snapshot.dead_letter_count, thresholds.max_dead_letters)


def dead_letters_growing(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    grown = snapshot.dead_letters_grown
    if grown <= thresholds.max_dead_letter_growth:
        return None
    text = f"DLQ is growing: {grown} entries more than an hour ago, {snapshot.dead_letter_count} in all"
    return Alert("dead_letters_growing", text, grown, thresholds.max_dead_letter_growth)


def dead_letter_age(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    age = snapshot.oldest_dead_letter_age_s
    if age <= thresholds.max_dead_letter_age_s:
        return None
    text = f"The oldest dead letter has waited {age / 3600:.0f} h for a decision"
    return Alert("dead_letter_age", text, age, thresholds.max_dead_letter_age_s)


def findings(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    counts = {kind: count for kind, count in snapshot.findings_for_a_person.items() if count}
    total = sum(counts.values())
    if total <= thresholds.max_findings:
        return None
    kinds = ", ".join(f"{kind} ({count})" for kind, count in counts.items())
    text = f"Ledgers disagree: {total} findings need a person: {kinds}"
    return Alert("findings", text, total, thresholds.max_findings, tuple(sorted(counts)))


def pending_age(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    age = snapshot.oldest_pending_age_s
    if age <= thresholds.max_pending_age_s:
        return None
    queue = max(snapshot.queues.values(), key=lambda queue: queue.oldest_pending_age_s)
    text = f"Stuck: the oldest message in {queue.name} has waited {age / 60:.0f} min; is its worker running?"
    over = (
        each for each in snapshot.queues.values() if each.oldest_pending_age_s > thresholds.max_pending_age_s
    )
    return Alert("pending_age", text, age, thresholds.max_pending_age_s, _names(over))


def repeated_age(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    """For what `pending_age` does not see: a message that waits for its next time is no backlog, but may wait for ever."""

    def limit(name: str) -> float:
        return thresholds.max_repeated_age_by_queue.get(name, thresholds.max_repeated_age_s)

    over = [queue for queue in snapshot.queues.values() if queue.oldest_repeated_age_s > limit(queue.name)]
    if not over:
        return None
    worst = max(over, key=lambda queue: queue.oldest_repeated_age_s / limit(queue.name))
    age = worst.oldest_repeated_age_s
    text = f"Deferred again and again: a message in {worst.name} was enqueued {age / 3600:.0f} h ago"
    return Alert("repeated_age", text, age, limit(worst.name), _names(over))


def queue_unusable(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    unusable = [queue for queue in snapshot.queues.values() if queue.unusable]
    if len(unusable) <= thresholds.max_unusable_queues:
        return None
    details = "; ".join(
        f"{queue.name} for {queue.unusable_for_s:.0f} s ({queue.unusable})" for queue in unusable
    )
    text = f"Nothing is published to: {details}"
    return Alert("queue_unusable", text, len(unusable), thresholds.max_unusable_queues, _names(unusable))


def task_paused(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    paused = snapshot.paused_tasks
    if len(paused) <= thresholds.max_paused_tasks:
        return None
    details = "; ".join(
        f"{task} for {pause.for_s:.0f} s ({pause.reason}), {pause.set_aside} messages wait"
        for task, pause in sorted(paused.items())
    )
    text = f"Nothing is published of: {details}"
    return Alert("task_paused", text, len(paused), thresholds.max_paused_tasks, tuple(sorted(paused)))


def workers_lost(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    lost = snapshot.workers_lately - snapshot.workers
    if lost <= thresholds.max_workers_lost:
        return None
    text = f"Workers dying: {lost} of {snapshot.workers_lately} no longer have a heartbeat, and did not stop properly"
    return Alert("workers_lost", text, lost, thresholds.max_workers_lost)


def workers_gone(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    if snapshot.workers or not snapshot.depth:
        return None
    return Alert("workers_gone", f"No worker has a heartbeat, waiting messages: {snapshot.depth}", 0, 1)


def circuit_open(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    opened = {name: processes for name, processes in snapshot.open_circuits.items() if processes}
    if len(opened) <= thresholds.max_open_circuits:
        return None
    details = ", ".join(f"{name} (in {processes} processes)" for name, processes in sorted(opened.items()))
    text = f"Open circuit: calls to {details} fail, and most are not made any more"
    return Alert("circuit_open", text, len(opened), thresholds.max_open_circuits, tuple(sorted(opened)))


def retry_share(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    """Of the worst task. An outage shows here at its first attempts, and in the dead letters after the last."""
    shares = {
        task: ran.failed / (ran.failed + ran.done)
        for task, ran in snapshot.tasks.items()
        if ran.failed >= thresholds.min_retries
    }
    if not shares or max(shares.values()) <= thresholds.max_retry_share:
        return None
    task, share = max(shares.items(), key=lambda item: item[1])
    ran = snapshot.tasks[task]
    text = f"{task} fails: {ran.failed} of {ran.failed + ran.done} messages of the last 5 min wait for another attempt"
    over = sorted(task for task, share in shares.items() if share > thresholds.max_retry_share)
    return Alert("retry_share", text, share, thresholds.max_retry_share, tuple(over))


def order_age(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    age = snapshot.oldest_order_age_s
    if age <= thresholds.max_order_age_s:
        return None
    text = f"Orders are stuck: {snapshot.oldest_order or 'the oldest'} was placed {age / 60:.0f} min ago and is not final"
    return Alert("order_age", text, age, thresholds.max_order_age_s)


def relay_lost(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    return _lost("relay", snapshot.relays, thresholds.max_relays_lost, "no accepted work starts")


def beat_lost(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    return _lost(
        "beat", snapshot.beats, thresholds.max_beats_lost, "no periodic task starts, and no alert is sent"
    )


def _lost(role: str, daemons: Daemons, most: int, consequence: str) -> Alert | None:
    lost = max(daemons.lately, int(daemons.expected)) - daemons.count
    if lost <= most:
        return None
    text = f"No {role} gives a sign of life: {consequence}"
    if daemons.count:
        text = f"A {role} is gone: {lost} of {daemons.lately} give no sign of life, and did not stop properly"
    return Alert(f"{role}_lost", text, lost, most)


def source_unreadable(snapshot: Snapshot, thresholds: Thresholds) -> Alert | None:
    if len(snapshot.unreadable) <= thresholds.max_unreadable_sources:
        return None
    details = "; ".join(f"{name} ({error})" for name, error in sorted(snapshot.unreadable.items()))
    text = f"Figures cannot be read, and their alerts cannot fire: {details}"
    unreadable = tuple(sorted(snapshot.unreadable))
    return Alert("source_unreadable", text, len(unreadable), thresholds.max_unreadable_sources, unreadable)


def _names(queues: Iterable[QueueSnapshot]) -> tuple[str, ...]:
    return tuple(sorted(queue.name for queue in queues))


#: Where a rule's figures come from when that is not the outbox. Without its source a rule cannot judge; the others can.
OTHER_SOURCE = {
    "dead_letters": sources.DLQ,
    "dead_letters_growing": sources.DLQ,
    "dead_letter_age": sources.DLQ,
    "findings": sources.FINDINGS,
    "circuit_open": sources.CIRCUITS,
    "order_age": sources.ORDERS,
    "source_unreadable": "",  # what could be read says nothing about it
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
        task_paused,
        workers_lost,
        workers_gone,
        circuit_open,
        retry_share,
        order_age,
        relay_lost,
        beat_lost,
        source_unreadable,
    )
}
