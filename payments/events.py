"""Applying the gateway's events: a second way to learn what the gateway did, never the only one.

Events come late, twice, and out of order. So an event is taken as a hint about *which* object changed, every
write is guarded so that it moves a row forward only, and an event that finds nothing to do is done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from django.db.models import Q
from django.db.models.functions import Now

from orders import selectors as orders
from orders.events import announce
from payments import disputes
from payments.gateway import answers
from payments.models import Refund, RefundStatus
from webhooks.incoming.selectors import get_incoming_event

logger = logging.getLogger(__name__)


def apply_event(event_id: str) -> None:
    """Apply one stored, verified event. Applying it again, or after a later one, changes nothing.

    Raises IncomingEvent.DoesNotExist for an id that was never stored. Unknown event types are ignored.
    """
    event = get_incoming_event(event_id)
    payload = event.payload
    if payload["type"].startswith("charge.dispute."):
        created = payload.get("created")
        told_at = datetime.fromtimestamp(created, UTC) if created else event.received_at
        told = answers.dispute(payload["data"]["object"])
        disputes.record(told, told_at=told_at, kind=payload["type"].rpartition(".")[2])
        return
    apply = _APPLIERS.get(payload["type"])
    if apply is None:
        logger.debug("gateway event %s of type %s is ignored", event_id, payload["type"])
        return
    apply(payload["data"]["object"])


def _captured(intent: dict[str, Any]) -> None:
    """Money was taken. Normally the run that confirmed the payment knows; here we catch the one case it
    cannot mend by itself: the order has meanwhile ended without a sale. An order that is still being
    processed is left alone: its own retries look the payment up, and reconciliation finds it if they have
    given up.
    """
    order = orders.order_by_payment_intent(intent["id"])
    if order is not None and order.is_unsold:
        announce("order.refund_due", order.pk)


def _charge_refunded(charge: dict[str, Any]) -> None:
    """Everything was given back, by us or by hand. A partial refund is not our compensation and is left to
    it: it gives back the rest.
    """
    if not charge["refunded"] or not charge.get("payment_intent"):
        return
    order = orders.order_by_payment_intent(charge["payment_intent"])
    if order is None or not order.is_unsold:
        # A completed order that somebody refunded by hand stays as it is: its goods may well have been kept.
        return
    refund, _ = Refund.objects.get_or_create(
        order_id=order.pk,
        defaults={"payment_intent_id": charge["payment_intent"], "currency": charge["currency"]},
    )
    _advance(
        Q(pk=refund.pk, status__in=[Refund.Status.PENDING, Refund.Status.VOIDED]),
        Refund.Status.SUCCEEDED,
        amount_cents=charge["amount_refunded"],
    )


def _refund_changed(refund: dict[str, Any]) -> None:
    """Our refund reached its end at the bank, which may say yes and, days later, no: failed is final."""
    ours = Q(gateway_refund_id=refund["id"])
    if refund["status"] == "succeeded":
        # The row has its amount already: the total, of which this refund may be a part.
        _advance(ours & Q(status=Refund.Status.PENDING), Refund.Status.SUCCEEDED)
    elif refund["status"] in ("failed", "canceled"):
        if refund.get("payment_intent"):
            # Of a refund made by hand, or of ours before its answer is written, the row does not know the id yet.
            ours |= Q(gateway_refund_id="", payment_intent_id=refund["payment_intent"])
        _advance(ours & ~Q(status=Refund.Status.FAILED), Refund.Status.FAILED, gateway_refund_id=refund["id"])


def _advance(which: Q, status: RefundStatus, **values: Any) -> None:
    if Refund.objects.filter(which).update(status=status, settled_at=Now(), **values):
        logger.info("refund is now %s (by a gateway event)", status)


_APPLIERS: dict[str, Callable[[dict[str, Any]], None]] = {
    "payment_intent.succeeded": _captured,
    "charge.refunded": _charge_refunded,
    "charge.refund.updated": _refund_changed,
    "refund.updated": _refund_changed,
    "refund.failed": _refund_changed,
}
