"""Lesson "unique constraint": an invoice that there is already is asked for inside of a transaction."""

from __future__ import annotations

import pytest
from django.db import transaction
from django.db.transaction import TransactionManagementError

from lab.lessons import unique_constraint
from orders.models import Order
from payments.invoices import create_invoice_for_order
from payments.models import Invoice

PERIOD = "2026-11"


def test_wrong_the_error_of_the_constraint_ends_the_callers_transaction(completed: Order) -> None:
    first = create_invoice_for_order(completed.pk, PERIOD)
    amounts = {
        name: getattr(first, name)
        for name in ("currency", "subtotal_cents", "tax_cents", "total_cents", "pdf")
    }

    with pytest.raises(TransactionManagementError), transaction.atomic():
        unique_constraint.create_invoice(completed.pk, PERIOD, **amounts)


def test_right_the_existing_invoice_is_returned_and_the_transaction_goes_on(completed: Order) -> None:
    first = create_invoice_for_order(completed.pk, PERIOD)
    with transaction.atomic():
        assert create_invoice_for_order(completed.pk, PERIOD) == first
        assert Invoice.objects.count() == 1
