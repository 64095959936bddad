"""The wrong way of docs/lessons/at-most-once.md: the mark comes after an effect that cannot be repeated."""

from __future__ import annotations

from django.utils import timezone

from orders.effects import add_to_totals
from orders.models import Order


def count(order_id: int) -> None:
    """A crash between the two lines, and the next run counts the order again."""
    order = Order.objects.get(pk=order_id)
    if order.counted_at is None:
        add_to_totals(order_id)
        Order.objects.filter(pk=order_id).update(counted_at=timezone.now())
