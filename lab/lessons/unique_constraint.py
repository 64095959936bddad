"""The wrong way of docs/lessons/unique-constraint.md: the constraint is right, and catching its error is not."""

from __future__ import annotations

from typing import Any

from django.db import IntegrityError

from payments.models import Invoice


def create_invoice(order_id: int, billing_period: str, **amounts: Any) -> Invoice:
    """On PostgreSQL a statement that fails ends the transaction: the second query is refused, and all before it is undone."""
    try:
        return Invoice.objects.create(order_id=order_id, billing_period=billing_period, **amounts)
    except IntegrityError:
        return Invoice.objects.get(order_id=order_id, billing_period=billing_period)
