"""Compensation: the money of an order that ended without a sale goes back, once.

The row (unique per order) records the intention before the gateway is called; the gateway's own list of
refunds says what already happened. So a crash at any point, or a replay after the idempotency key has
expired, ends with one refund.
"""

from __future__ import annotations

from django.db.models import Q
from django.db.models.functions import Now

from orders import selectors as orders
from payments import disputes
from payments.gateway.client import PaymentGateway, Refunded
from payments.gateway.errors import GatewayError, RequestRefused
from payments.models import Refund

#: The gateway's codes for a payment that the customer's bank has taken back.
_DISPUTED = frozenset({"charge_disputed", "refund_disputed_payment"})


class RefundRefused(Exception):
    """The order is in a state in which its payment is rightly ours: cancel it first. Permanent."""


class RefundFailed(GatewayError):
    """The gateway took the refund and could not carry it out (a closed account): a person must pay it back.

    Permanent for this message; a replay asks for another refund.
    """


def refund_order(order_id: int) -> Refund:
    """Make sure that this order's money goes back, and return the refund's row.

    `succeeded` or `voided`; `pending` while the bank is at it, which an event or reconciliation will settle; `disputed`
    where the customer's bank has taken the money back already.

    Raises RefundRefused, RefundFailed, `payments.gateway.errors.GatewayUnavailable` (ask again) or `InvalidRequest`.
    """
    order = orders.get_order(order_id)
    if not order.is_unsold:
        raise RefundRefused(
            f"order {order_id} is {order.status}: only cancelled or failed orders are refunded"
        )
    # A charge that was made without committing its id first is known only by the id of the payment.
    intent_id = order.payment_intent_id or order.payment_id
    refund, _ = Refund.objects.get_or_create(
        order_id=order_id, defaults={"payment_intent_id": intent_id, "currency": order.currency}
    )
    # Without an id an event was faster than us: the gateway's list says which refund it was, and none is made.
    if refund.status == Refund.Status.SUCCEEDED and refund.gateway_refund_id:
        return refund
    if not intent_id:
        # An intent is confirmed only after its id was committed on the order: no id, nothing captured.
        return settle(refund, Refunded("", Refund.Status.VOIDED, 0))
    # `voided` is looked at again, on purpose: the gateway's answer counts, not our record.
    try:
        done = PaymentGateway.refund(intent_id, order_id=order_id, idempotency_key=f"refund-order-{order_id}")
    except RequestRefused as error:
        # Asking again cannot help while the bank has the money; the dispute's end asks again, or makes it needless.
        if error.code not in _DISPUTED or not (found := disputes.of_payment(intent_id)):
            raise
        row = Refund.objects.filter(pk=refund.pk).exclude(status=Refund.Status.SUCCEEDED)
        row.update(status=Refund.Status.DISPUTED, settled_at=None, payment_intent_id=intent_id)
        for told in found:
            disputes.record(told)
        refund.refresh_from_db()
        return refund
    if settle(refund, done, payment_intent_id=intent_id).status == Refund.Status.FAILED:
        raise RefundFailed(f"refund {refund.gateway_refund_id} of order {order_id} has failed at the gateway")
    return refund


def settle(refund: Refund, done: Refunded, *, payment_intent_id: str = "") -> Refund:
    """Write what the gateway says into the refund's row, unless the row knows better, and return it."""
    known = (Refund.Status.PENDING, Refund.Status.SUCCEEDED, Refund.Status.VOIDED)
    status = done.status if done.status in known else Refund.Status.FAILED
    row = Refund.objects.filter(pk=refund.pk)
    # A stale run must not overwrite what a faster one or an event recorded: `succeeded` is never taken back here,
    # and `failed` is the last word about that refund.
    stale = Q(status=Refund.Status.SUCCEEDED) | Q(status=Refund.Status.FAILED, gateway_refund_id=done.id)
    row.exclude(stale).update(
        status=status,
        payment_intent_id=payment_intent_id or refund.payment_intent_id,
        gateway_refund_id=done.id,
        amount_cents=done.amount_cents,
        # The bank takes its time, days if it likes: an event, or reconciliation, which asks again, settles the row.
        settled_at=None if status == Refund.Status.PENDING else Now(),
    )
    # An event that overtook this answer stored no id, and by the id a later refusal of the bank finds this row.
    row.filter(gateway_refund_id="").update(gateway_refund_id=done.id)
    refund.refresh_from_db()
    return refund
