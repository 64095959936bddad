"""What a subscriber is told about an order: the public wire format, kept apart from how orders are stored."""

from datetime import datetime
from typing import Any

from orders.selectors import get_order


def order_payload(order_id: int) -> dict[str, Any]:
    """The order as it is now, as plain JSON: amounts in minor units of `currency`, times in ISO 8601 (UTC).

    Raises Order.DoesNotExist. Never carries payment details or addresses: an endpoint may be anybody's
    server.
    """
    order = get_order(order_id)
    return {
        "order_id": order.pk,
        "customer_id": order.customer_id,
        "status": order.status,
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
        "cancelled_at": _iso(order.cancelled_at),
    }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
