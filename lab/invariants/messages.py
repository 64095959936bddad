"""Messages: each is in exactly one state and in exactly one place, none is missing, none is left, all is bounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from itertools import chain, pairwise

from lab.invariants.finding import Finding, none
from lab.invariants.records import ENDED, OPEN, DeadLetterLine, Ledgers, MessageLine

#: What the transaction that accepted an order wrote, and what the one that completed it wrote: once each.
PROCESS = "orders.tasks.process_order"
AT_ACCEPTANCE = (PROCESS, "orders.tasks.send_confirmation")
AT_COMPLETION = (
    "orders.tasks.send_receipt",
    "payments.tasks.create_invoice",
    "orders.tasks.update_inventory",
    "orders.tasks.notify_warehouse",
    "orders.tasks.sync_to_crm",
    "orders.tasks.track_analytics",
)
#: Beat comes up while the run begins already, and may be killed at its end.
BEAT_START_S = 15.0
#: Failures of the database, of a deployment, or of a process that was told to stop: no message is to die of them.
NOT_ITS_OWN = (
    "django.db.utils.",
    "psycopg2.",
    "celery.exceptions.NotRegistered",
    "TypeError",
    "billiard.exceptions.",
)
AT_EVERY_END = "webhooks.tasks.publish_event"


def no_message_is_open(ledgers: Ledgers) -> Finding:
    return Finding("no message is open", str(ledgers.open_messages), "-", ledgers.open_messages == 0)


def no_dead_letter(ledgers: Ledgers) -> Finding:
    return Finding(
        "no dead letter", str(ledgers.unresolved_dead_letters), "-", ledgers.unresolved_dead_letters == 0
    )


def every_message_exists_once(ledgers: Ledgers) -> Finding:
    """Conservation: each order has exactly the messages that its transactions wrote, each in one known state.

    Reconciliation writes another one for an order whose money it finds taken, and which is not completed after a while.
    """
    have: Counter[tuple[str, str]] = Counter((line.correlation_id, line.task) for line in ledgers.messages)

    def wrong() -> Iterator[str]:
        for line in ledgers.messages:
            if line.status not in (*OPEN, *ENDED):
                yield f"{line.message_id} is {line.status!r}"
            if line.leased and line.status != "published":
                yield f"{line.message_id} is {line.status} and still leased"
        for order in ledgers.orders:
            story = f"order-{order.id}"
            ends = order.was_completed + (order.status == "cancelled") + (order.status == "failed")
            due = dict.fromkeys(AT_ACCEPTANCE, 1) | dict.fromkeys(AT_COMPLETION, int(order.was_completed))
            due |= {PROCESS: 1 + (order.id in ledgers.reprocessed), AT_EVERY_END: ends}
            for task, count in due.items():
                if have[story, task] != count:
                    yield f"{story} has {have[story, task]} of {count} {task}"

    states = Counter(line.status for line in ledgers.messages)
    shown = ", ".join(f"{count:,} {status}" for status, count in states.most_common())
    return none("every message exists once, in one state", shown or "0", wrong())


def every_failure_has_one_place(ledgers: Ledgers) -> Finding:
    """Each failed message is scheduled for a retry, an unresolved dead letter, or resolved: never two of them, never none."""
    dead_letters = {dead_letter.message_id: dead_letter for dead_letter in ledgers.dead_letters}
    rows = {line.message_id: line.status for line in ledgers.messages}

    def wrong(line: MessageLine, dead_letter: DeadLetterLine | None) -> Iterator[str]:
        if line.status == "dead" and (dead_letter is None or dead_letter.state != "open"):
            yield f"{line.message_id} is dead, its record is {dead_letter.state if dead_letter else 'missing'}"
        if line.status in OPEN and dead_letter is not None and dead_letter.state == "open":
            yield f"{line.message_id} is {line.status} and an open dead letter as well"
        if line.status == "done" and dead_letter is not None and dead_letter.state != "resolved":
            yield f"{line.message_id} is done, its dead letter is {dead_letter.state}"

    def without_a_failure() -> Iterator[str]:
        for dead_letter in ledgers.dead_letters:
            status = rows.get(dead_letter.edited_as or dead_letter.message_id, "missing")
            if dead_letter.generation is None or status not in ("cancelled", "missing"):
                continue
            if dead_letter.state in ("open", "replaying"):
                yield f"{dead_letter.message_id} is {status}, its dead letter is {dead_letter.state}"

    failed = sum(line.attempts > 1 or line.status == "dead" for line in ledgers.messages)
    found = (text for line in ledgers.messages for text in wrong(line, dead_letters.get(line.message_id)))
    return none(
        "every failure has exactly one place",
        f"{failed:,} failed once or more",
        chain(found, without_a_failure()),
    )


def only_garbage_is_left(ledgers: Ledgers) -> Finding:
    """After the operator's replay the only unresolved dead letters are of what the experiment itself injected."""
    left = [dead_letter for dead_letter in ledgers.dead_letters if dead_letter.state in ("open", "replaying")]
    strange = (
        f"{dead_letter.message_id} is {dead_letter.state}"
        for dead_letter in left
        # A readable one becomes a row when it is replayed, and dies as one.
        if dead_letter.message_id not in ledgers.injected
        # A broken message may have no id that can be read: then its dead letter is known by the digest of its bytes.
        and (dead_letter.generation is not None or not dead_letter.message_id.startswith("sha256:"))
    )
    named = sum(dead_letter.message_id in ledgers.injected for dead_letter in left)
    counts = f"{named:,} of {len(ledgers.injected):,} with an id, {len(left) - named:,} without"
    return none("no dead letter but injected garbage", counts, strange)


def no_message_dies_of_a_passing_fault(ledgers: Ledgers) -> Finding:
    """A database without space, a worker of the previous release or a stop says nothing about the message."""
    ours = [dead_letter for dead_letter in ledgers.dead_letters if dead_letter.generation is not None]
    wrong = (
        f"{dead_letter.message_id} died of {dead_letter.exception}"
        for dead_letter in ours
        if dead_letter.exception.startswith(NOT_ITS_OWN)
    )
    return none("no message died of a passing fault", f"{len(ours):,} died of another cause", wrong)


def replays_are_runs_of_the_same_message(ledgers: Ledgers) -> Finding:
    """Lineage: a row was replayed as often as its dead letter says, and each replay was a new generation of it."""
    rows = {line.message_id: line for line in ledgers.messages}

    def wrong() -> Iterator[str]:
        for dead_letter in ledgers.dead_letters:
            if dead_letter.generation is None:
                continue
            row = rows.get(dead_letter.message_id)
            if row is None:
                yield f"the dead letter of {dead_letter.message_id} has no message"
            elif row.replays != dead_letter.replayed:
                yield f"{dead_letter.message_id}: {dead_letter.replayed} replays were ordered, {row.replays} armed"
            elif row.generation + row.born_of_replay <= row.replays:
                yield f"{dead_letter.message_id}: generation {row.generation} after {row.replays} replays"
            if dead_letter.failures != 1 + dead_letter.reopened:
                yield f"{dead_letter.message_id}: {dead_letter.failures} failures, {dead_letter.reopened} times reopened"

    replayed = sum(dead_letter.replayed for dead_letter in ledgers.dead_letters)
    return none("a replay is another run of the same message", f"{replayed:,} replays", wrong())


def the_broker_stays_bounded(ledgers: Ledgers) -> Finding:
    wrong = [
        f"{queue} held {depth} of {sample.allowed} after {sample.at_s:.1f} s"
        for sample in ledgers.samples
        for queue, depth in sample.depths.items()
        if depth > sample.allowed
    ]
    if not any(sample.depths for sample in ledgers.samples):
        wrong.append("no depth was ever read")
    # What is allowed grows with what the experiment puts in by itself, so the two figures are of one sample.
    seen = [(depth, sample.allowed) for sample in ledgers.samples for depth in sample.depths.values()]
    highest, allowed = max(seen, key=lambda pair: pair[0] / pair[1], default=(0, 0))
    return none("broker depth <= limit + relays x batch, always", f"{highest:,} of {allowed:,}", wrong)


def every_tick_ran_once(ledgers: Ledgers) -> Finding:
    """Beat: one message a tick, no tick between the first and the last is missing, and these span the run."""
    ticks: dict[str, list[datetime]] = {schedule: [] for schedule in ledgers.tick_s}
    ran_s = max((sample.at_s for sample in ledgers.samples), default=0.0)
    for line in ledgers.messages:
        if line.tick:
            schedule, _, moment = line.tick.partition(":")
            ticks.setdefault(schedule, []).append(datetime.fromisoformat(moment))

    def wrong() -> Iterator[str]:
        for schedule, moments in ticks.items():
            moments.sort()
            for before, after in pairwise(moments):
                apart = (after - before).total_seconds()
                if apart != ledgers.tick_s.get(schedule, apart):
                    yield f"{schedule}: {apart:g} s between {before:%H:%M:%S} and the next tick"
            spanned_s = (moments[-1] - moments[0]).total_seconds() if moments else -1.0
            if spanned_s < ran_s - 3 * ledgers.tick_s.get(schedule, ran_s) - BEAT_START_S:
                yield f"{schedule}: its {len(moments)} ticks span {max(spanned_s, 0):g} s of {ran_s:.0f}"

    return none(
        "every tick of the schedule has one message", f"{sum(map(len, ticks.values())):,} ticks", wrong()
    )
