"""The wrong way of docs/lessons/payment-key.md: the key alone is to keep the second charge away."""

from __future__ import annotations

from typing import Any

import stripe


def charge(client: stripe.StripeClient, order_id: int, amount_cents: int) -> str:
    """The provider forgets a key after a day, and a message may be replayed on day three."""
    params: Any = {
        "amount": amount_cents, "currency": "usd", "payment_method": "pm_card_visa", "confirm": True,
        "payment_method_types": ["card"], "metadata": {"order_id": str(order_id)},
    }  # fmt: skip
    intent = client.v1.payment_intents.create(params, {"idempotency_key": f"order-{order_id}"})
    return intent.id
