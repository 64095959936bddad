"""Refunds of captured intents, in full or in part, never beyond what was captured."""

from __future__ import annotations

import sqlite3
from typing import Any

from lab.sandbox import disputes, events, objects
from lab.sandbox.objects import Document
from lab.sandbox.params import checked_metadata, known_params
from lab.sandbox.stripe_errors import invalid
from lab.sandbox.wire import Answer

_CREATE = frozenset({"payment_intent", "charge", "amount", "reason", "metadata", "expand"})


def create(db: sqlite3.Connection, params: dict[str, Any]) -> Answer:
    """POST /v1/refunds: `amount` minor units of the intent's capture, or all that is left of it."""
    known_params(params, _CREATE)
    charge = _charge(db, params)
    left = charge["amount"] - charge["amount_refunded"]
    if left == 0:
        raise invalid(f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded")
    disputes.check_refundable(db, charge)
    amount = objects.whole_number(params["amount"], param="amount") if params.get("amount") else left
    if amount < 1:
        raise invalid("Invalid positive integer", code="parameter_invalid_integer", param="amount")
    if amount > left:
        raise invalid(
            f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left}).",
            code="amount_too_large",
            param="amount",
        )
    refund: Document = {
        "id": objects.new_id("re"),
        "object": "refund",
        "amount": amount,
        "charge": charge["id"],
        "created": objects.now(),
        "currency": charge["currency"],
        # Stripe's refund does not inherit metadata, and neither does the ledger: it finds the order by the
        # charge.
        "metadata": checked_metadata(params),
        "payment_intent": charge["payment_intent"],
        "reason": params.get("reason") or None,
        "status": "succeeded",
    }
    objects.put(db, refund)
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] == charge["amount"]
    objects.update(db, charge)
    events.record(db, "charge.refunded", charge)
    return Answer.of(200, refund)


def _charge(db: sqlite3.Connection, params: dict[str, Any]) -> Document:
    if params.get("charge"):
        return objects.get(db, "charge", params["charge"], param="charge")
    intent_id = params.get("payment_intent")
    if not intent_id:
        raise invalid(
            "One of the following params should be provided: payment_intent or charge.",
            code="parameter_missing",
        )
    objects.get(db, "payment_intent", intent_id, param="payment_intent")
    charge = objects.charge_of(db, intent_id)
    if charge is None:
        raise invalid(f"This PaymentIntent ({intent_id}) does not have a successful charge to refund.")
    return charge
