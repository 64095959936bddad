"""An invoice as a PDF: a pure function of what is on it, so that the same invoice is the same bytes on any
machine.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from typing import TYPE_CHECKING, cast

from payments.gateway import money

if TYPE_CHECKING:
    from fpdf import FPDF

#: Item, quantity, unit price and amount; together the width between the margins of A4.
COLUMN_WIDTHS_MM = (76.0, 22.8, 45.6, 45.6)
ROW_HEIGHT_MM = 7.0


@dataclass(frozen=True)
class Line:
    """One position: so many units of a SKU at a unit price in minor units."""

    sku: str
    quantity: int
    unit_price_cents: int


@dataclass(frozen=True)
class Document:
    """Everything that is printed. Amounts are in minor units of `currency`."""

    number: str
    order_id: int
    billing_period: str
    issued_at: datetime
    customer_name: str
    customer_email: str
    currency: str
    subtotal_cents: int
    tax_cents: int
    total_cents: int
    lines: Sequence[Line] = ()


def printable(text: str) -> str:
    """`text` in the characters of the PDF's built-in fonts (Latin-1): accents that they lack are dropped,
    characters of other scripts become `?`. No text makes the invoice fail; for other scripts, embed a font of
    your own.
    """
    return "".join(_latin(character) for character in " ".join(text.split()))


def render(document: Document) -> bytes:
    """The PDF's bytes; equal documents give equal bytes."""
    # Imported where it is used: it takes a third of the start of every process, and few ever print.
    from fpdf import FPDF

    pdf = FPDF(format="A4")
    # The library would stamp the wall clock and derive the file's id from it.
    pdf.set_creation_date(document.issued_at)
    pdf.set_title(f"Invoice {document.number}")
    pdf.add_page()
    pdf.set_font("Helvetica", "B", 18)
    _row(pdf, f"Invoice {document.number}", height=12)
    pdf.set_font("Helvetica", size=10)
    _row(pdf, f"Order {document.order_id}, billing period {printable(document.billing_period)}")
    _row(pdf, f"Issued {document.issued_at:%Y-%m-%d}")
    _row(pdf, f"{printable(document.customer_name)} <{printable(document.customer_email)}>")
    pdf.ln(6)
    _heading(pdf)
    for line in document.lines:
        amount_cents = line.quantity * line.unit_price_cents
        _table_row(
            pdf,
            printable(line.sku),
            str(line.quantity),
            money(line.unit_price_cents, document.currency),
            money(amount_cents, document.currency),
        )
    pdf.ln(4)
    for label, cents in (("Subtotal", document.subtotal_cents), ("Tax", document.tax_cents)):
        _row(pdf, f"{label}: {money(cents, document.currency)}", align="R")
    pdf.set_font("Helvetica", "B", 12)
    _row(pdf, f"Total: {money(document.total_cents, document.currency)}", align="R")
    return bytes(pdf.output())


def _row(pdf: FPDF, text: str, *, height: float = 6, align: str = "L") -> None:
    for line in _wrapped(pdf, pdf.epw, text):
        pdf.cell(0, height, line, align=align, new_x="LMARGIN", new_y="NEXT")


def _heading(pdf: FPDF) -> None:
    pdf.set_font(style="B")
    _table_row(pdf, "Item", "Quantity", "Unit price", "Amount")
    pdf.set_font(style="")


def _table_row(pdf: FPDF, *texts: str) -> None:
    """One row of plain cells: the library's own tables take three times as long. A text that is too long for its column
    is wrapped; a row that is too high for the rest of the page goes to the next one, under a heading.
    """
    columns = [_wrapped(pdf, width, text) for width, text in zip(COLUMN_WIDTHS_MM, texts, strict=True)]
    rows = list(zip_longest(*columns, fillvalue=""))
    if pdf.will_page_break(len(rows) * ROW_HEIGHT_MM):
        pdf.add_page()
        _heading(pdf)
    for number, row in enumerate(rows, start=1):
        border = "LR" + ("T" if number == 1 else "") + ("B" if number == len(rows) else "")
        for width, text, align in zip(COLUMN_WIDTHS_MM, row, "LRRR", strict=True):
            pdf.cell(width, ROW_HEIGHT_MM, text, border=border, align=align)
        pdf.ln(ROW_HEIGHT_MM)


def _wrapped(pdf: FPDF, width: float, text: str) -> list[str]:
    """The lines that `text` takes in a cell of this width; one, without asking the library to wrap it, if it fits."""
    if pdf.get_string_width(text) <= width - 2 * pdf.c_margin:
        return [text]
    return cast("list[str]", pdf.multi_cell(width, text=text, align="L", dry_run=True, output="LINES"))


def _latin(character: str) -> str:
    base = "".join(
        part for part in unicodedata.normalize("NFKD", character) if not unicodedata.combining(part)
    )
    for candidate in (character, base):
        if candidate.isprintable() and candidate.encode("latin-1", "ignore").decode("latin-1") == candidate:
            return candidate
    return "?"
