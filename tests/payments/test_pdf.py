"""payments/pdf.py: the same invoice is the same bytes, and no name breaks it."""

from __future__ import annotations

import dataclasses
import re
import zlib
from datetime import UTC, datetime

import pytest
from fpdf import FPDF

from payments.pdf import COLUMN_WIDTHS_MM, Document, Line, printable, render

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


def test_a_hundred_lines_are_all_printed_above_the_bottom_margin() -> None:
    """With a heading on each page."""
    pages = printed_pages([Line(f"SKU-{n}", 1, 100) for n in range(100)])
    texts = [text for page in pages for text, _ in page]
    assert [text for text in texts if text.startswith("SKU-")] == [f"SKU-{n}" for n in range(100)]
    assert [sum(text == "Item" for text, _ in page) for page in pages] == [1] * len(pages)
    assert min(y for page in pages for _, y in page) > FPDF().b_margin * FPDF().k


@pytest.mark.parametrize("sku", ["W" * 64, " ".join(["WIDGET"] * 9)])
def test_a_sku_too_long_for_its_column_is_wrapped_in_it(sku: str) -> None:
    (page,) = printed_pages([Line(sku, 2_147_483_647, 9_223_372_036)])
    parts = [text for text, _ in page if text.startswith("W")]
    assert "".join(parts).replace(" ", "") == sku.replace(" ", "")
    pdf = FPDF()
    pdf.set_font("Helvetica", size=10)
    assert max(pdf.get_string_width(text) for text in parts) <= COLUMN_WIDTHS_MM[0] - 2 * pdf.c_margin


def test_a_wrapped_line_is_not_torn_by_the_end_of_a_page() -> None:
    pages = printed_pages([Line("W" * 64, 1, 100)] * 40)
    assert len(pages) > 2
    for page in pages:
        assert "".join(text for text, _ in page if set(text) == {"W"}).count("W") % 64 == 0


def printed_pages(lines: list[Line]) -> list[list[tuple[str, float]]]:
    """Each text of each page with the height of its baseline over the end of the paper, in points."""
    drawn = render(dataclasses.replace(INVOICE, lines=lines))
    pages = [zlib.decompress(stream) for stream in re.findall(rb"stream\n(.*?)\nendstream", drawn, re.DOTALL)]
    found = [re.findall(rb"BT [\d.]+ ([\d.]+) Td \((.*?)\) Tj ET", page) for page in pages]
    return [[(text.decode("latin-1"), float(y)) for y, text in page] for page in found if page]


@pytest.mark.parametrize(
    ("text", "printed"), [("Zoë Müller", "Zoë Müller"), ("Łódź", "?ódz"), ("李", "?"), (" a \n b ", "a b")]
)
def test_accents_stay_or_are_dropped_and_the_rest_is_marked(text: str, printed: str) -> None:
    assert printable(text) == printed
