"""Rows of any model, so that a list of each can be shown with as many as wanted."""

from __future__ import annotations

import uuid
from datetime import date, timedelta
from typing import Any

from django.db import models
from django.utils import timezone

#: What no value by the type of its field would satisfy: a constraint of the table says more.
_OVERRIDES: dict[str, Any] = {
    "orders.Order": lambda n: {"subtotal_cents": n, "total_cents": n},
    "payments.CustomerBill": lambda n: {"billing_period": f"{2000 + n}-01"},
    "payments.CustomerBillTotal": lambda n: {"currency": "cu" + chr(96 + n)},
    "orders.Price": lambda n: {"currency": "cu" + chr(96 + n)},
    "orders.DailyTotals": lambda n: {"currency": "cu" + chr(96 + n)},
    "dlq.Operation": lambda n: {"started_at": timezone.now()},
    "dlq.DeadLetter": lambda n: {
        "task": "orders.tasks.send_receipt",
        "args": [n],
        "kwargs": {},
        "failures": 1,
        "fingerprint": str(n),
    },
}
_BY_TYPE: tuple[tuple[type[models.Field[Any, Any]], Any], ...] = (
    (models.UUIDField, lambda n: uuid.uuid4()),
    (models.DateTimeField, lambda n: timezone.now()),
    (models.DateField, lambda n: date(2025, 1, 1) + timedelta(days=n)),
    (models.JSONField, lambda n: {}),
    (models.BinaryField, lambda n: b"content"),
    (models.BooleanField, lambda n: True),
    (models.IntegerField, lambda n: n),
    (models.GenericIPAddressField, lambda n: f"10.0.0.{n}"),
    (models.TextField, lambda n: f"text {n}"),
    (models.CharField, lambda n: f"value-{n}"),
)


def make(model: type[models.Model], number: int, **given: Any) -> models.Model:
    """Store the row of this number, from 1; rows of other models that it refers to are there or are made."""
    values = _OVERRIDES.get(model._meta.label, lambda n: {})(number) | given
    for field in model._meta.concrete_fields:
        if field.name not in values and not isinstance(field, models.AutoField):
            if isinstance(field, models.ForeignKey):
                values[field.name] = _related(field, number)
            elif field.unique or not (field.has_default() or field.null or field.has_db_default()):
                values[field.name] = _value(field, number)
    return model._default_manager.create(**values)


def _related(field: models.ForeignKey[Any, Any], number: int) -> Any:
    model = field.related_model
    place = number - 1 if field.unique else 0
    while (found := model._default_manager.order_by("pk")[place : place + 1].first()) is None:
        make(model, model._default_manager.count() + 1)
    return found


def _value(field: models.Field[Any, Any], number: int) -> Any:
    if field.choices:
        return field.choices[0][0]
    value = next(value for kind, value in _BY_TYPE if isinstance(field, kind))(number)
    return value[: field.max_length] if isinstance(value, str) and field.max_length else value
