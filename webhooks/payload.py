"""What a subscriber is told about an order: the public wire format, kept apart from how orders are stored."""

from datetime import datetime
from typing import Any

from orders.selectors import get_order


def order_payload(order_id: int, event: str) -> dict[str, Any]:
    """The order as `event` left it, as plain JSON: amounts in minor units of `currency`, times in ISO 8601 (UTC).

    The state is the event's own: the order may be cancelled by the time its completion is published, and a
    payload that says so would contradict the event that it comes with.

    Raises Order.DoesNotExist. Never carries payment details or addresses: an endpoint may be anybody's
    server.
    """
    order = get_order(order_id)
    return {
        "order_id": order.pk,
        "customer_id": order.customer_id,
        "status": event.removeprefix("order."),
        "currency": order.currency,
        "subtotal_cents": order.subtotal_cents,
        "tax_cents": order.tax_cents,
        "total_cents": order.total_cents,
        "items": [
            {"sku": item.product.sku, "quantity": item.quantity, "unit_price_cents": item.unit_price_cents}
            for item in order.items.select_related("product").order_by("pk")
        ],
        "created_at": _iso(order.created_at),
        "completed_at": _iso(order.completed_at),
        "cancelled_at": _iso(order.cancelled_at) if event == "order.cancelled" else None,
    }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
