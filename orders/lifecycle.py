"""Who may work on an order: every guarded change of an order's state, each one compare-and-swap in the
database.

A claim is a lease with a fencing number. The lease says how long no other message may start; the fence says whose
writes still count. A worker that was frozen past its lease goes on as if it held the order, and none of its writes
matches a row (Kleppmann, "How to do distributed locking", 2016).
"""

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import DurationField, ExpressionWrapper, F, QuerySet

import outbox
from common.clock import ClockTimestamp
from orders import stock
from orders.events import announce
from orders.models import UNSOLD, Order, OrderTransition

#: Longer than the hard time limit of `process_order` (55 s), so that no live run outlives its lease.
LEASE_S = 60.0

Status = Order.Status

#: The claim that an order was returned by still holds; `_held` says the same to Django.
_HELD = f"status = '{Status.PROCESSING}' AND fence = %(fence)s"


class ClaimLost(Exception):
    """The order was cancelled, or claimed by another run, while this run held it: nothing was written."""


def claim(*, order_id: int, owner: str) -> Order | None:
    """Take the order for `LEASE_S` seconds, or None when there is nothing to take.

    It can be taken when it is pending, when the lease on it has run out, or when
    `owner` is that holder itself: the rerun of a message need not wait for the lease of its own dead
    predecessor. The fence rises each time, which shuts that predecessor out should it be alive after all.
    """
    return _transition(
        order_id,
        Status.PROCESSING,
        f"status = '{Status.PENDING}' OR status = '{Status.PROCESSING}' AND"
        " (lease_until IS NULL OR lease_until <= clock_timestamp() OR lease_owner = %(owner)s)",
        "lease_owner = %(owner)s, lease_until = clock_timestamp() + %(lease)s, fence = fence + 1",
        owner=owner,
        lease=timedelta(seconds=LEASE_S),
    )


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
    with outbox.settling() as settle:
        won = _transition(
            order.pk,
            Status.COMPLETED,
            _HELD,
            "payment_id = %(payment_id)s, processing_count = processing_count + 1,"
            " completed_at = clock_timestamp(), lease_until = NULL",
            fence=order.fence,
            payment_id=payment_id,
        )
        if won:
            announce("order.completed", order.pk, customer_id=order.customer_id)
            settle()
        return won is not None


def fail(order: Order, *, reason: str) -> bool:
    """Declined: fail the order, free its stock and announce it. False when the claim was lost meanwhile."""
    with outbox.settling() as settle:
        won = _transition(
            order.pk,
            Status.FAILED,
            _HELD,
            "failure_reason = %(note)s, lease_until = NULL",
            note=reason,
            fence=order.fence,
        )
        if won:
            announce("order.failed", order.pk, customer_id=order.customer_id)
            settle()
            # Last, because the locks on the products are what orders of one SKU wait for.
            stock.release(order)
        return won is not None


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
    """Seconds until another run may claim the order, by the database's clock; 0.0 when it is free."""
    left = ExpressionWrapper(F("lease_until") - ClockTimestamp(), output_field=DurationField())
    remaining = Order.objects.filter(pk=order_id).values_list(left, flat=True).first()
    return max(0.0, remaining.total_seconds()) if remaining else 0.0


def log_transition(order_id: int, before: str, after: str, *, note: str = "") -> None:
    """One line for the order's log, in the caller's transaction."""
    OrderTransition.objects.create(
        order_id=order_id, from_status=before, to_status=after, note=note[:500], message_id=_message_id()
    )


def _transition(
    order_id: int, status: str, condition: str, changes: str, *, note: str = "", **values: Any
) -> Order | None:
    """Change the order and log it if the condition holds: the order as it is then, None if it does not hold.

    Compare-and-swap, and its line in the log: in one statement both happen or neither, for one round trip. `condition` and
    `changes` are SQL over the order's row; `values` are their parameters.
    """
    # A concurrent change is waited for in `before`, whose condition is then compared with what that change wrote.
    sql = f"""
        WITH before AS (
            SELECT id, status FROM orders_order WHERE id = %(order_id)s AND ({condition}) FOR NO KEY UPDATE
        ), changed AS (
            UPDATE orders_order SET status = %(status)s, {changes}
            FROM before WHERE orders_order.id = before.id
            RETURNING orders_order.*, before.status AS status_before
        ), logged AS (
            INSERT INTO orders_ordertransition (order_id, from_status, to_status, at, note, message_id)
            SELECT id, status_before, status, clock_timestamp(),
                CASE WHEN status_before = status THEN 'taken over' ELSE %(note)s END, %(message_id)s::uuid
            FROM changed
        )
        SELECT * FROM changed
    """
    values |= {"order_id": order_id, "status": status, "note": note[:500], "message_id": _message_id()}
    return next(iter(Order.objects.raw(sql, values)), None)


def _message_id() -> UUID | None:
    message = outbox.current()
    return message.message_id if message else None


def _held(order: Order) -> QuerySet[Order]:
    """The order's row if, and only if, the claim that `order` was returned by still holds."""
    return Order.objects.filter(pk=order.pk, status=Status.PROCESSING, fence=order.fence)
