"""What a run did to customers and money, counted in the same way for any application: lost, doubled, forgotten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lab.invariants import ClientRequest


@dataclass(frozen=True)
class Outcome:
    """One order as an application's database has it when all is over. `receipts` counts what its customer got."""

    id: int
    tag: str
    ended: bool
    completed: bool
    total_cents: int
    due_cents: int  # what it should cost
    receipts: int


def damage(
    requests: Sequence[ClientRequest],
    outcomes: Sequence[Outcome],
    charged: Sequence[int],
    kept: Sequence[int],
) -> dict[str, int]:
    """`charged`: order id of each capture; `kept`: of each that was not given back. All zero is a good day."""
    by_id = {outcome.id: outcome for outcome in outcomes}
    answered = [by_id.get(request.order_id) for request in requests if request.order_id is not None]
    captures, still_ours = Counter(charged), Counter(kept)
    tags = Counter(outcome.tag for outcome in outcomes)
    completed = [outcome for outcome in outcomes if outcome.completed]
    return {
        "accepted orders that never ended": sum(outcome is None or not outcome.ended for outcome in answered),
        "customers with two orders for one request": sum(count > 1 for count in tags.values()),
        "orders charged more than once": sum(count > 1 for count in captures.values()),
        "captures too many": sum(count - 1 for count in captures.values()),
        "orders charged and not completed": sum(
            not by_id[each].completed for each in still_ours if each in by_id
        ),
        "completed orders that were not charged": sum(not captures[outcome.id] for outcome in completed),
        "orders with a wrong total": sum(outcome.total_cents != outcome.due_cents for outcome in completed),
        "completed orders without a receipt": sum(not outcome.receipts for outcome in completed),
        "customers with two receipts": sum(outcome.receipts > 1 for outcome in outcomes),
    }
