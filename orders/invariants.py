"""Invariants of the orders that the control room checks every few seconds: {invariant: [what breaks it]}."""

from __future__ import annotations

from datetime import timedelta

from common.clock import ClockTimestamp
from orders.events import correlation_id
from orders.models import Order
from outbox.stats import without_a_message

#: Orders that are looked at: of those that are open the oldest, of all the newest.
LOOKED_AT = 500
#: Between the commit that ends an order's last message and the look at the order there may be another.
GRACE = timedelta(minutes=1)


def invariants() -> dict[str, list[str]]:
    """In three statements."""
    open_orders = Order.objects.filter(
        status__in=(Order.Status.PENDING, Order.Status.PROCESSING), created_at__lt=ClockTimestamp() - GRACE
    ).order_by("pk")
    names = {correlation_id(pk): f"order {pk}" for pk in open_orders.values_list("pk", flat=True)[:LOOKED_AT]}
    newest = Order.objects.order_by("-pk").values_list("pk", "processing_count")[:LOOKED_AT]
    return {
        "Every open order has a message that will run, or a dead letter": [
            names[each] for each in without_a_message(names)
        ],
        "No order was completed twice": [f"order {pk}" for pk, count in newest if count > 1],
    }
