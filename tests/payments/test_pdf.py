"""payments/pdf.py: the same invoice is the same bytes, and no name breaks it."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import pytest

from payments.pdf import Document, Line, printable, render

INVOICE = Document(
    number="INV-00000042",
    order_id=7,
    billing_period="2026-11",
    issued_at=datetime(2026, 11, 23, 8, 0, tzinfo=UTC),
    customer_name="Ada Lovelace",
    customer_email="ada@example.com",
    currency="usd",
    subtotal_cents=3998,
    tax_cents=400,
    total_cents=4398,
    lines=(Line("WIDGET", 2, 1999),),
)


def test_equal_invoices_are_equal_bytes() -> None:
    drawn = render(INVOICE)
    assert render(dataclasses.replace(INVOICE)) == drawn
    assert b"D:20261123080000" in drawn, "stamped with the clock: equal only within the same second"


def test_another_total_is_another_document() -> None:
    assert render(INVOICE) != render(dataclasses.replace(INVOICE, total_cents=4399))


@pytest.mark.parametrize(
    "name",
    ["Łukasz Żółć", "李雷", "محمد", "👩‍🚀", "a\x00b\nc\td", "", "x" * 5000, "\ud800", "O\u2019Neill €"],
)
def test_no_name_makes_an_invoice_fail(name: str) -> None:
    assert render(dataclasses.replace(INVOICE, customer_name=name)).startswith(b"%PDF-")


def test_many_lines_go_on_to_further_pages() -> None:
    many = render(dataclasses.replace(INVOICE, lines=[Line(f"SKU-{n}", n, 100) for n in range(1, 200)]))
    assert many.count(b"/Type /Page\n") > 3


@pytest.mark.parametrize(
    ("text", "printed"), [("Zoë Müller", "Zoë Müller"), ("Łódź", "?ódz"), ("李", "?"), (" a \n b ", "a b")]
)
def test_accents_stay_or_are_dropped_and_the_rest_is_marked(text: str, printed: str) -> None:
    assert printable(text) == printed
