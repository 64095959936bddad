"""payments/admin.py: the money can be read and downloaded, and not edited."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from payments.invoices import create_invoice_for_order
from payments.models import Refund
from tests.payments.conftest import MakeOrder


@pytest.fixture
def operator(db: None, client: Client) -> Client:
    client.force_login(User.objects.create_superuser("operator"))
    return client


def test_an_invoice_can_be_listed_opened_and_downloaded(make_order: MakeOrder, operator: Client) -> None:
    invoice = create_invoice_for_order(make_order().pk, "2026-10")
    assert "99.99 USD" in operator.get(reverse("admin:payments_invoice_changelist")).content.decode()
    assert operator.get(reverse("admin:payments_invoice_change", args=[invoice.pk])).status_code == 200
    answer = operator.get(reverse("admin:payments_invoice_pdf", args=[invoice.pk]))
    assert answer["Content-Type"] == "application/pdf"
    assert answer.content.startswith(b"%PDF-")
    assert operator.get(reverse("admin:payments_invoice_pdf", args=[invoice.pk + 1])).status_code == 404


def test_a_pdf_is_not_for_everybody(make_order: MakeOrder, client: Client) -> None:
    invoice = create_invoice_for_order(make_order().pk, "2026-10")
    url = reverse("admin:payments_invoice_pdf", args=[invoice.pk])
    assert client.get(url).status_code == 302
    client.force_login(User.objects.create_user("clerk", is_staff=True))
    assert client.get(url).status_code == 404


@pytest.mark.parametrize("model", ["refund", "customerbill", "finding"])
def test_every_list_opens_and_offers_no_edit(make_order: MakeOrder, operator: Client, model: str) -> None:
    Refund.objects.create(order=make_order(), currency="usd")
    assert operator.get(reverse(f"admin:payments_{model}_changelist")).status_code == 200
    assert operator.get(reverse(f"admin:payments_{model}_add")).status_code == 403
