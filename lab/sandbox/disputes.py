"""Disputes: the customer's bank takes a payment back, and decides later whether it stays so.

As in Stripe's test mode a dispute is opened by a card, and decided by its evidence: `winning_evidence` in
`evidence[uncategorized_text]` wins it, `losing_evidence` loses it. Source: https://docs.stripe.com/testing#disputes
"""

from __future__ import annotations

import sqlite3
from typing import Any

from lab.sandbox import events, objects
from lab.sandbox.objects import Document
from lab.sandbox.params import checked_metadata, known_params
from lab.sandbox.stripe_errors import invalid
from lab.sandbox.wire import Answer

# Test payment methods that are charged and then disputed -> (reason, whether it is only an inquiry).
CARDS = {
    "pm_card_createDispute": ("fraudulent", False),
    "pm_card_createDisputeProductNotReceived": ("product_not_received", False),
    "pm_card_createDisputeInquiry": ("fraudulent", True),
}
RESPOND_WITHIN_S = 7 * 24 * 60 * 60
_CLOSED = ("won", "lost", "warning_closed")
_UPDATE = frozenset({"evidence", "metadata", "submit", "expand"})
_CLOSE = frozenset({"expand"})


def open_dispute(db: sqlite3.Connection, charge: Document, *, reason: str, inquiry: bool = False) -> Document:
    """A new dispute of the whole charge. An inquiry takes no money yet."""
    dispute: Document = {
        "id": objects.new_id("du"),
        "object": "dispute",
        "amount": charge["amount"],
        "charge": charge["id"],
        "created": objects.now(),
        "currency": charge["currency"],
        "evidence": {"uncategorized_text": None},
        "evidence_details": {
            "due_by": objects.now() + RESPOND_WITHIN_S,
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
        },
        "is_charge_refundable": inquiry,
        "livemode": False,
        "metadata": {},
        "payment_intent": charge["payment_intent"],
        "reason": reason,
        "status": "warning_needs_response" if inquiry else "needs_response",
    }
    objects.put(db, dispute)
    charge["disputed"] = True
    objects.update(db, charge)
    events.record(db, "charge.dispute.created", dispute)
    if not inquiry:
        events.record(db, "charge.dispute.funds_withdrawn", dispute)
    return dispute


def submit(db: sqlite3.Connection, dispute_id: str, params: dict[str, Any]) -> Answer:
    """POST /v1/disputes/{id}: evidence, which is sent to the bank unless `submit=false`."""
    known_params(params, _UPDATE)
    dispute = objects.get(db, "dispute", dispute_id, param="dispute")
    evidence = params.get("evidence") or {}
    if not isinstance(evidence, dict):
        raise invalid("Invalid object", param="evidence")
    if evidence and dispute["status"] in _CLOSED:
        raise invalid("This dispute is already closed, and cannot be updated.", param="evidence")
    dispute["metadata"] |= checked_metadata(params)
    dispute["evidence"] |= evidence
    inquiry = dispute["status"].startswith("warning")
    if evidence and params.get("submit", "true") != "false":
        dispute["evidence_details"]["submission_count"] += 1
        dispute["status"] = "warning_under_review" if inquiry else "under_review"
    objects.update(db, dispute)
    events.record(db, "charge.dispute.updated", dispute)
    verdict = str(evidence.get("uncategorized_text", ""))
    if dispute["status"].endswith("under_review") and verdict in ("winning_evidence", "losing_evidence"):
        won = verdict == "winning_evidence"
        _decide(db, dispute, ("warning_closed" if inquiry else "won") if won else "lost")
    return Answer.of(200, dispute)


def close(db: sqlite3.Connection, dispute_id: str, params: dict[str, Any]) -> Answer:
    """POST /v1/disputes/{id}/close: accepted, and so lost."""
    known_params(params, _CLOSE)
    dispute = objects.get(db, "dispute", dispute_id, param="dispute")
    if dispute["status"] in _CLOSED:
        raise invalid("This dispute is already closed.", param="dispute")
    _decide(db, dispute, "lost")
    return Answer.of(200, dispute)


def check_refundable(db: sqlite3.Connection, charge: Document) -> None:
    """Raises `Refused` (400) for a charge whose money the bank has, or has kept."""
    rows = db.execute(
        "SELECT 1 FROM gateway_object WHERE kind = 'dispute' AND payment_intent = ?"
        " AND json_extract(document, '$.status') IN ('needs_response', 'under_review', 'lost')",
        (charge["payment_intent"],),
    )
    if rows.fetchone():
        raise invalid(
            f"Charge {charge['id']} has been charged back; cannot issue a refund.", code="charge_disputed"
        )


def _decide(db: sqlite3.Connection, dispute: Document, status: str) -> None:
    dispute |= {"status": status, "is_charge_refundable": status != "lost"}
    objects.update(db, dispute)
    events.record(db, "charge.dispute.closed", dispute)
    if status == "won":
        events.record(db, "charge.dispute.funds_reinstated", dispute)
