"""The life of a PaymentIntent: created, confirmed, captured once, declined or cancelled.

Source: https://docs.stripe.com/payments/paymentintents/lifecycle and https://docs.stripe.com/testing (the
test cards).
"""

from __future__ import annotations

import secrets
import sqlite3
from typing import Any

from lab.sandbox import disputes, events, objects
from lab.sandbox.currencies import CURRENCIES, check_amount
from lab.sandbox.objects import Document
from lab.sandbox.params import checked_metadata, known_params
from lab.sandbox.stripe_errors import invalid, stripe_error
from lab.sandbox.wire import Answer

# Test payment methods -> (code, decline code); None = the charge succeeds.
CARDS: dict[str, tuple[str, str] | None] = {
    "pm_card_visa": None,
    "pm_card_visa_debit": None,
    "pm_card_mastercard": None,
    "pm_card_amex": None,
    "pm_card_visa_chargeDeclined": ("card_declined", "generic_decline"),
    "pm_card_visa_chargeDeclinedInsufficientFunds": ("card_declined", "insufficient_funds"),
    "pm_card_visa_chargeDeclinedLostCard": ("card_declined", "lost_card"),
    "pm_card_chargeDeclinedExpiredCard": ("expired_card", "expired_card"),
    **dict.fromkeys(disputes.CARDS),
}
NEEDS_CUSTOMER = (
    "pm_card_authenticationRequired"  # stays in requires_action: there is no customer to authenticate
)

_CREATE = frozenset(
    {
        "amount",
        "currency",
        "metadata",
        "payment_method",
        "payment_method_types",
        "confirm",
        "customer",
        "description",
        "receipt_email",
        "return_url",
        "off_session",
        "automatic_payment_methods",
        "capture_method",
        "confirmation_method",
        "statement_descriptor",
        "statement_descriptor_suffix",
        "setup_future_usage",
        "expand",
    }
)
_CONFIRM = frozenset(
    {"payment_method", "payment_method_types", "return_url", "off_session", "receipt_email", "expand"}
)
_CANCEL = frozenset({"cancellation_reason", "expand"})


def create(db: sqlite3.Connection, params: dict[str, Any]) -> Answer:
    """POST /v1/payment_intents, confirmed at once when it says `confirm=true`."""
    known_params(params, _CREATE)
    amount, currency = _money(params)
    if params.get("capture_method", "automatic") not in ("automatic", "automatic_async"):
        raise invalid("This sandbox captures automatically only.", param="capture_method")
    metadata = checked_metadata(params)
    intent_id = objects.new_id("pi")
    intent: Document = {
        "id": intent_id,
        "object": "payment_intent",
        "amount": amount,
        "amount_capturable": 0,
        "amount_received": 0,
        "canceled_at": None,
        "cancellation_reason": None,
        "capture_method": params.get("capture_method", "automatic"),
        "client_secret": f"{intent_id}_secret_{secrets.token_hex(12)}",
        "confirmation_method": "automatic",
        "created": objects.now(),
        "currency": currency,
        "customer": params.get("customer") or None,
        "description": params.get("description") or None,
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": False,
        "metadata": metadata,
        "next_action": None,
        "payment_method": _known_card(params),
        "payment_method_types": ["card"],
        "receipt_email": params.get("receipt_email") or None,
        "status": "requires_confirmation" if params.get("payment_method") else "requires_payment_method",
    }
    objects.put(db, intent)
    if params.get("confirm") == "true":
        return _attempt(db, intent)
    return Answer.of(200, intent)


def confirm(db: sqlite3.Connection, intent_id: str, params: dict[str, Any]) -> Answer:
    """POST /v1/payment_intents/{id}/confirm: captures once, or answers 402 and leaves the intent open."""
    known_params(params, _CONFIRM)
    intent = objects.get(db, "payment_intent", intent_id)
    if intent["status"] not in ("requires_confirmation", "requires_payment_method", "requires_action"):
        raise _unexpected_state(intent, "confirm")
    intent["payment_method"] = _known_card(params) or intent["payment_method"]
    intent["receipt_email"] = params.get("receipt_email") or intent["receipt_email"]
    return _attempt(db, intent)


def cancel(db: sqlite3.Connection, intent_id: str, params: dict[str, Any]) -> Answer:
    """POST /v1/payment_intents/{id}/cancel: no capture can follow."""
    known_params(params, _CANCEL)
    intent = objects.get(db, "payment_intent", intent_id)
    if intent["status"] in ("succeeded", "canceled"):
        raise _unexpected_state(intent, "cancel")
    intent |= {
        "status": "canceled",
        "canceled_at": objects.now(),
        "cancellation_reason": params.get("cancellation_reason") or None,
    }
    objects.update(db, intent)
    return Answer.of(200, intent)


def _attempt(db: sqlite3.Connection, intent: Document) -> Answer:
    card = intent["payment_method"]
    if card == NEEDS_CUSTOMER:
        intent |= {"status": "requires_action", "next_action": {"type": "use_stripe_sdk"}}
        objects.update(db, intent)
        return Answer.of(200, intent)
    if card is None:
        raise invalid(
            "You cannot confirm this PaymentIntent because it's missing a payment method.",
            code="payment_intent_unexpected_state",
            payment_intent=intent,
        )
    declined = CARDS[card]
    if declined is not None:
        return _decline(db, intent, *declined)
    charge = {
        "id": objects.new_id("ch"),
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": intent["amount"],
        "amount_refunded": 0,
        "captured": True,
        "created": objects.now(),
        "currency": intent["currency"],
        "customer": intent["customer"],
        "description": intent["description"],
        "disputed": False,
        "livemode": False,
        "metadata": intent["metadata"],
        "paid": True,
        "payment_intent": intent["id"],
        "payment_method": card,
        "receipt_email": intent["receipt_email"],
        "refunded": False,
        "status": "succeeded",
    }
    objects.put(db, charge)
    intent |= {
        "status": "succeeded",
        "amount_received": intent["amount"],
        "latest_charge": charge["id"],
        "last_payment_error": None,
        "next_action": None,
    }
    objects.update(db, intent)
    events.record(db, "payment_intent.succeeded", intent)
    if card in disputes.CARDS:
        reason, inquiry = disputes.CARDS[card]
        disputes.open_dispute(db, charge, reason=reason, inquiry=inquiry)
    return Answer.of(200, intent)


def _decline(db: sqlite3.Connection, intent: Document, code: str, decline_code: str) -> Answer:
    message = "Your card has expired." if code == "expired_card" else "Your card was declined."
    card = {"id": intent["payment_method"], "object": "payment_method", "type": "card"}
    reason: dict[str, Any] = {"code": code, "decline_code": decline_code, "payment_method": card}
    intent |= {
        "status": "requires_payment_method",
        "payment_method": None,
        "last_payment_error": {"type": "card_error", "message": message, **reason},
    }
    objects.update(db, intent)
    events.record(db, "payment_intent.payment_failed", intent)
    return stripe_error(402, "card_error", message, payment_intent=intent, **reason)


def _money(params: dict[str, Any]) -> tuple[int, str]:
    for name in ("amount", "currency"):
        if not params.get(name):
            raise invalid(f"Missing required param: {name}.", code="parameter_missing", param=name)
    amount = objects.whole_number(params["amount"], param="amount")
    if amount < 1:
        raise invalid("Invalid positive integer", code="parameter_invalid_integer", param="amount")
    currency = str(params["currency"]).lower()
    if currency not in CURRENCIES:
        raise invalid(f"Invalid currency: {currency[:40]}.", param="currency")
    check_amount(amount, currency)
    return amount, currency


def _known_card(params: dict[str, Any]) -> str | None:
    card = params.get("payment_method") or None
    if card is not None and card not in CARDS and card != NEEDS_CUSTOMER:
        raise invalid(f"No such PaymentMethod: '{card}'", code="resource_missing", param="payment_method")
    return card


def _unexpected_state(intent: Document, verb: str) -> Exception:
    message = f"You cannot {verb} this PaymentIntent because it has a status of {intent['status']}."
    if verb == "confirm" and intent["status"] == "succeeded":
        message = "This PaymentIntent's payment_method could not be updated: it has already succeeded."
    return invalid(message, code="payment_intent_unexpected_state", payment_intent=intent)
