"""Who may work on an order: every guarded change of an order's state, each one compare-and-swap in the
database.

A claim is a lease with a fencing number. The lease says how long nobody else may start; the fence says whose
writes still count. A worker that was frozen past its lease wakes up, believes that it holds the order, and
finds that none of its writes matches (Kleppmann, "How to do distributed locking", 2016).
"""

from datetime import timedelta

from django.db import transaction
from django.db.models import DurationField, ExpressionWrapper, F, Q, QuerySet

import outbox
from common.clock import ClockTimestamp
from orders import stock
from orders.events import announce
from orders.models import UNSOLD, Order, OrderTransition

#: Longer than the hard time limit of `process_order` (55 s), so that no live run outlives its lease.
LEASE_S = 60.0

Status = Order.Status


class ClaimLost(Exception):
    """The order was cancelled, or claimed by somebody else, while this run held it: nothing was written."""


def claim(*, order_id: int, owner: str) -> Order | None:
    """Take the order for `LEASE_S` seconds, or None when there is nothing to take.

    It can be taken when it is pending, when the lease of whoever was processing it has run out, or when
    `owner` is that holder itself: the rerun of a message need not wait for the lease of its own dead
    predecessor. The fence rises each time, which shuts that predecessor out should it be alive after all.
    """
    lease = {
        "status": Status.PROCESSING,
        "lease_owner": owner,
        "lease_until": ClockTimestamp() + timedelta(seconds=LEASE_S),
        "fence": F("fence") + 1,
    }
    abandoned = Q(lease_until__isnull=True) | Q(lease_until__lte=ClockTimestamp()) | Q(lease_owner=owner)
    with transaction.atomic():
        if Order.objects.filter(pk=order_id, status=Status.PENDING).update(**lease):
            log_transition(order_id, Status.PENDING, Status.PROCESSING)
        elif Order.objects.filter(abandoned, pk=order_id, status=Status.PROCESSING).update(**lease):
            log_transition(order_id, Status.PROCESSING, Status.PROCESSING, note="taken over")
        else:
            return None
        # Our own update still locks the row: this is the order as we claimed it.
        return Order.objects.get(pk=order_id)


def keep_intent(order: Order, payment_intent_id: str) -> None:
    """Commit the id of the payment before it is confirmed; raises ClaimLost, which must stop the
    confirmation.

    A committed id is never replaced: a second payment for the order could then be confirmed beside the first.
    """
    if not _held(order).filter(payment_intent_id="").update(payment_intent_id=payment_intent_id):
        raise ClaimLost(f"order {order.pk}")
    order.payment_intent_id = payment_intent_id


def release(order: Order) -> bool:
    """End the lease, so that a retry need not wait for it. False when the claim was lost meanwhile."""
    return bool(_held(order).update(lease_until=ClockTimestamp()))


def complete(order: Order, *, payment_id: str) -> bool:
    """Charged: complete the order and announce it, in one transaction. False when the claim was lost
    meanwhile.
    """
    with transaction.atomic():
        won = _held(order).update(
            status=Status.COMPLETED,
            payment_id=payment_id,
            processing_count=F("processing_count") + 1,
            completed_at=ClockTimestamp(),
            lease_until=None,
        )
        if won:
            log_transition(order.pk, Status.PROCESSING, Status.COMPLETED)
            announce("order.completed", order.pk, customer_id=order.customer_id)
        return bool(won)


def fail(order: Order, *, reason: str) -> bool:
    """Declined: fail the order, free its stock and announce it. False when the claim was lost meanwhile."""
    with transaction.atomic():
        won = _held(order).update(status=Status.FAILED, failure_reason=reason[:500], lease_until=None)
        if won:
            stock.release(order)
            log_transition(order.pk, Status.PROCESSING, Status.FAILED, note=reason)
            announce("order.failed", order.pk, customer_id=order.customer_id)
        return bool(won)


def request_refund(*, order_id: int, payment_id: str = "") -> bool:
    """Have an order that shall not be paid for refunded; True when this call made the request.

    Once for an order whose charge is only possible (`payment_id` unknown), and once when the charge becomes
    known: the second request is what repairs a first one that found nothing to refund yet.
    """
    unpaid = Order.objects.filter(pk=order_id, status__in=UNSOLD)
    with transaction.atomic():
        if payment_id:
            won = unpaid.filter(payment_id="").update(
                payment_id=payment_id, refund_requested_at=ClockTimestamp()
            )
        else:
            won = unpaid.filter(refund_requested_at__isnull=True).update(refund_requested_at=ClockTimestamp())
        if won:
            announce("order.refund_due", order_id)
        return bool(won)


def lease_left_s(order_id: int) -> float:
    """Seconds until somebody else may claim the order, by the database's clock; 0.0 when it is free."""
    left = ExpressionWrapper(F("lease_until") - ClockTimestamp(), output_field=DurationField())
    remaining = Order.objects.filter(pk=order_id).values_list(left, flat=True).first()
    return max(0.0, remaining.total_seconds()) if remaining else 0.0


def log_transition(order_id: int, before: str, after: str, *, note: str = "") -> None:
    """One line for the order's log, in the caller's transaction."""
    message = outbox.current()
    OrderTransition.objects.create(
        order_id=order_id,
        from_status=before,
        to_status=after,
        note=note[:500],
        message_id=message.message_id if message else None,
    )


def _held(order: Order) -> QuerySet[Order]:
    """The order's row if, and only if, the claim that `order` was returned by still holds."""
    return Order.objects.filter(pk=order.pk, status=Status.PROCESSING, fence=order.fence)
