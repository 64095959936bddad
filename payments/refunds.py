"""Compensation: the money of an order that ended without a sale goes back, once.

The row (unique per order) records the intention before the gateway is called; the gateway's own list of
refunds says what already happened. So a crash at any point, or a replay after the idempotency key has
expired, ends with one refund.
"""

from __future__ import annotations

from django.db.models.functions import Now

from orders import selectors as orders
from payments.errors import GatewayError
from payments.gateway import PaymentGateway, Refunded
from payments.models import Refund

#: Order states in which keeping the money would be wrong.
REFUNDABLE = frozenset({"cancelled", "failed"})


class RefundRefused(Exception):
    """The order is in a state in which its payment is rightly ours: cancel it first. Permanent."""


class RefundFailed(GatewayError):
    """The gateway took the refund and could not carry it out (a closed account): a person must pay it back.

    Permanent for this message; a replay asks for another refund.
    """


def refund_order(order_id: int) -> Refund:
    """Make sure that this order's money goes back, and return the refund's row.

    `succeeded` or `voided`; `pending` while the bank is at it, which an event or reconciliation will settle.

    Raises RefundRefused, RefundFailed, `payments.errors.GatewayUnavailable` (ask again) or `InvalidRequest`.
    """
    order = orders.get_order(order_id)
    if order.status not in REFUNDABLE:
        raise RefundRefused(
            f"order {order_id} is {order.status}: only cancelled or failed orders are refunded"
        )
    # A charge that was made without committing its id first is known only by the id of the payment.
    intent_id = order.payment_intent_id or order.payment_id
    refund, _ = Refund.objects.get_or_create(
        order_id=order_id, defaults={"payment_intent_id": intent_id, "currency": order.currency}
    )
    if refund.status == Refund.Status.SUCCEEDED:
        return refund
    if not intent_id:
        # An intent is confirmed only after its id was committed on the order: no id, nothing captured.
        return _settle(refund, Refunded("", Refund.Status.VOIDED, 0))
    # `voided` is looked at again, on purpose: the gateway's word counts, not what we once thought.
    done = PaymentGateway.refund(intent_id, order_id=order_id, idempotency_key=f"refund-order-{order_id}")
    return _settle(refund, done, payment_intent_id=intent_id)


def _settle(refund: Refund, done: Refunded, payment_intent_id: str = "") -> Refund:
    if done.status == "pending":
        # The bank takes its time, days if it likes: an event, or reconciliation, which asks again, settles
        # the row.
        Refund.objects.filter(pk=refund.pk, status=Refund.Status.PENDING).update(
            gateway_refund_id=done.id, amount_cents=done.amount_cents
        )
        refund.refresh_from_db()
        return refund
    settled = (Refund.Status.SUCCEEDED, Refund.Status.VOIDED)
    status = done.status if done.status in settled else Refund.Status.FAILED
    # `succeeded` is never taken back here: a stale run must not overwrite what a faster one or an event
    # recorded.
    Refund.objects.filter(pk=refund.pk).exclude(status=Refund.Status.SUCCEEDED).update(
        status=status,
        payment_intent_id=payment_intent_id or refund.payment_intent_id,
        gateway_refund_id=done.id,
        amount_cents=done.amount_cents,
        settled_at=Now(),
    )
    refund.refresh_from_db()
    if refund.status == Refund.Status.FAILED:
        raise RefundFailed(f"refund {done.id} of order {refund.order_id} is {done.status} at the gateway")
    return refund
