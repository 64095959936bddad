"""The wrong way of docs/lessons/state-check.md: the state is read, and written much later."""

from __future__ import annotations

from orders.models import Order
from payments.gateway import PaymentGateway


def process_order(order_id: int) -> str:
    """Between the check and the save another copy of the job passes the same check."""
    order = Order.objects.get(pk=order_id)
    if order.status in ("completed", "failed"):
        return "already_processed"
    payment = PaymentGateway.charge(order.customer_id, order.total_cents)
    order.status = "completed"
    order.payment_id = payment.id
    order.save()
    return "completed"
