"""What the two journeys of an order, its customer's and the one for staff, are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orders.events import correlation_id
from orders.models import Order, OrderTransition
from outbox.stats import messages_of
from payments.selectors import disputes_of, invoices_of, refund_of


@dataclass(frozen=True)
class Records:
    """The rows of one order, each list oldest first. `messages`: those with its correlation id, see `messages_of`."""

    order: Order
    correlation_id: str
    transitions: Sequence[OrderTransition]
    messages: list[Any]
    invoices: Sequence[Any]
    refund: Any
    disputes: Sequence[Any]


def records_of(order: Order, most_messages: int | None = None) -> Records:
    """Read them, with up to so many messages (None: all), in five statements."""
    correlation = correlation_id(order.pk)
    return Records(
        order=order,
        correlation_id=correlation,
        transitions=list(order.transitions.all()),
        messages=messages_of(correlation, most_messages),
        invoices=invoices_of(order.pk),
        refund=refund_of(order.pk),
        disputes=disputes_of(order.pk),
    )
