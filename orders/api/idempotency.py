"""Whose an Idempotency-Key is: one order for one key of a customer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.models.signals import post_delete
from django.dispatch import receiver

from idempotency.answers import Asked, fingerprint
from idempotency.models import Record
from orders.models import ApiKey, Order

if TYPE_CHECKING:
    # Every process imports this module, and pydantic takes a while.
    from orders.schema import OrderIn


def asked_for(api_key: ApiKey, key: str, body: OrderIn) -> Asked:
    """The request to place this order, whose customer `api_key` may order for: the caller has checked it.

    The key belongs to the customer and not to the API key: a client that rotates its API key in the middle of a retry
    repeats the request, and must get the order that there is. One API key may place orders for several customers; a key
    that it used for another customer counts as used with another body.
    """
    # Defaults left out: a release that adds an optional field must not make another body of each that is repeated.
    values = body.model_dump(mode="json", exclude_defaults=True)
    return Asked(
        scope=_scope(body.customer_id), key=key, body_hash=fingerprint(values), client=f"api-key-{api_key.pk}"
    )


def _scope(customer_id: int) -> str:
    return f"customer-{customer_id}"


@receiver(post_delete, sender=Order)
def _forget_answer(instance: Order, **_: Any) -> None:
    """An answer is kept for as long as its order."""
    Record.objects.filter(
        scope=_scope(instance.customer_id), headers__Location__endswith=f"/orders/{instance.pk}"
    ).delete()
