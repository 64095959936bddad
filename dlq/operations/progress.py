"""How far an operation is: what was sent, and what came of it. "Sent" is not "succeeded"."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from django.db import connection
from django.db.models import Count, F, Q

from dlq.operations.models import Operation, OperationItem, Outcome
from dlq.refusals import Refusals
from dlq.states import State

#: Outcomes that were not known yet and that the dead letters show now. For a message that the journal took over under
#: another id, the dead letter with that id shows it.
_SETTLE = f"""
    UPDATE dlq_operationitem item SET outcome = CASE
        WHEN dead_letter.failures > item.failures OR again.id IS NOT NULL THEN '{Outcome.FAILED}'
        WHEN dead_letter.state = '{State.RESOLVED}' THEN '{Outcome.SUCCEEDED}'
        ELSE '{Outcome.UNKNOWN}' END
    FROM dlq_operationitem sent
    LEFT JOIN dlq_deadletter dead_letter ON dead_letter.id = sent.dead_letter_id
    LEFT JOIN dlq_deadletter again ON again.message_id = sent.sent_as AND again.id <> dead_letter.id
    WHERE item.id = sent.id AND sent.operation_id = %s AND sent.outcome = '{Outcome.SENT}'
      AND (dead_letter.id IS NULL OR dead_letter.state <> '{State.REPLAYING}' OR dead_letter.failures > item.failures)
"""


def settle(operation_id: int) -> int:
    """Write down every outcome that became known; returns how many."""
    with connection.cursor() as cursor:
        cursor.execute(_SETTLE, [operation_id])
        return cursor.rowcount


@dataclass(frozen=True)
class Numbers:
    """The items of an operation by outcome: of all, and of those sent since its last start."""

    by_outcome: Counter[str]
    since_start: Counter[str]

    @property
    def waiting(self) -> int:
        return self.by_outcome[Outcome.WAITING]

    @property
    def sent(self) -> int:
        """What was sent, whatever came of it."""
        return sum(self.by_outcome.values()) - self.waiting - self.by_outcome[Outcome.REFUSED]

    @property
    def outstanding(self) -> int:
        return self.by_outcome[Outcome.SENT]

    @property
    def done_percent(self) -> int:
        every = sum(self.by_outcome.values())
        return 100 * (every - self.waiting) // every if every else 100

    def line(self) -> str:
        """`12 sent (8 succeeded, 2 failed again), 1 refused, 7 not sent`."""
        shown = {
            Outcome.SUCCEEDED: "succeeded",
            Outcome.FAILED: "failed again",
            Outcome.SENT: "without an outcome yet",
            Outcome.UNKNOWN: "given up without an outcome",
        }
        parts = [f"{self.by_outcome[each]} {name}" for each, name in shown.items() if self.by_outcome[each]]
        of_them = f" ({', '.join(parts)})" if parts else ""
        done = "discarded" if self.by_outcome[Outcome.DISCARDED] else "sent"
        refused = self.by_outcome[Outcome.REFUSED]
        return f"{self.sent} {done}{of_them}, {refused} refused, {self.waiting} not {done}"


def numbers(operation_id: int) -> Numbers:
    """Count its items, in one statement."""
    by_outcome: Counter[str] = Counter()
    since_start: Counter[str] = Counter()
    rows = OperationItem.objects.filter(operation_id=operation_id).order_by().values_list("outcome")
    for outcome, every, since in rows.annotate(
        every=Count("pk"), since=Count("pk", filter=Q(sent_at__gte=F("operation__started_at")))
    ):
        by_outcome[outcome] = every
        since_start[outcome] = since
    return Numbers(by_outcome, since_start)


def refusals(operation: Operation) -> Refusals:
    """Why it could not send what was refused, or what the broker did not take: each reason once, with its number."""
    collected = Refusals()
    refused = operation.items.exclude(why="")
    for message_id, why in refused.values_list("dead_letter__message_id", "why"):
        collected.add(message_id, why)
    return collected
