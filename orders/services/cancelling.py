"""Cancelling an order, at any moment of its life."""

from django.db import transaction

from common.clock import ClockTimestamp
from orders import lifecycle, stock
from orders.events import announce
from orders.models import Order

Status = Order.Status


class CannotCancel(Exception):
    """The order is in a state that cannot be cancelled; `status` is that state."""

    def __init__(self, order: Order) -> None:
        super().__init__(f"Order {order.pk} is {order.status} and cannot be cancelled.")
        self.status = order.status


@transaction.atomic
def cancel_order(*, order_id: int, reason: str = "") -> Order:
    """Cancel the order and return it; cancelling it again changes nothing.

    Pending: its stock is free at once. Processing: the message that charges it finds its claim lost, and either does
    not confirm or has the charge refunded. Completed: the charge is refunded; units that were shipped stay shipped.
    Raises CannotCancel for a failed order, and Order.DoesNotExist.
    """
    order = Order.objects.select_for_update().get(pk=order_id)
    before = order.status
    if before == Status.CANCELLED:
        return order
    if before == Status.FAILED:
        raise CannotCancel(order)
    being_charged = before == Status.PROCESSING and lifecycle.lease_left_s(order_id) > 0
    Order.objects.filter(pk=order_id).update(
        status=Status.CANCELLED, cancelled_at=ClockTimestamp(), lease_until=None, fence=order.fence + 1
    )
    lifecycle.log_transition(order_id, before, Status.CANCELLED, note=reason)
    announce("order.cancelled", order_id, customer_id=order.customer_id)
    if (order.payment_id or order.payment_intent_id) and not being_charged:
        # A run that is still charging asks for the refund itself, once it knows what there is to refund.
        lifecycle.request_refund(order_id=order_id)
    order.refresh_from_db()
    if order.stock_shipped_at is None:
        # Last, because the locks on the products are what orders of one SKU wait for.
        stock.release(order)
    return order
