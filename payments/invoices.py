"""One invoice per (order, billing period), however often it is asked for and from however many workers."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from django.db import connection

from orders import selectors as orders
from payments import pdf
from payments.models import Invoice

MAX_PERIOD_LENGTH = 32


# The number is taken before there is a row, because the PDF shows it.
_NUMBER = "SELECT nextval(pg_get_serial_sequence('payments_invoice', 'id')), clock_timestamp()"
_INSERT = """
    INSERT INTO payments_invoice
        (id, order_id, billing_period, currency, subtotal_cents, tax_cents, total_cents, issued_at, pdf)
    VALUES (%(id)s, %(order_id)s, %(billing_period)s, %(currency)s, %(subtotal_cents)s, %(tax_cents)s, %(total_cents)s,
        %(issued_at)s, %(pdf)s)
    ON CONFLICT DO NOTHING
    RETURNING id
"""


class InvalidBillingPeriod(ValueError):
    """The text cannot name a billing period. Permanent."""


def create_invoice_for_order(order_id: int, billing_period: str, *, order: Any = None) -> Invoice:
    """The order's invoice for this period: a new one with its PDF, or the one that is already there.

    Amounts are copied from the order in minor units. Safe inside the caller's transaction. Raises
    InvalidBillingPeriod, and what `orders.selectors.get_order` raises for an unknown order.
    Source of the idea: database-level deduplication, a unique constraint and `ON CONFLICT DO NOTHING`, which unlike an
    IntegrityError leaves the caller's transaction usable without a savepoint. `order`: from `orders.selectors.get_order`,
    where the caller has it; by default it is read.
    """
    if not 0 < len(billing_period) <= MAX_PERIOD_LENGTH or not billing_period.isprintable():
        raise InvalidBillingPeriod(
            f"a billing period has 1 to {MAX_PERIOD_LENGTH} printable characters, not {billing_period[:40]!r}"
        )
    existing = Invoice.objects.filter(order_id=order_id, billing_period=billing_period).first()
    if existing is not None:
        # Spares a redelivery the drawing and a number; the constraint below is the guarantee.
        return existing
    order = order or orders.get_order(order_id)
    invoice = Invoice(
        order_id=order_id,
        billing_period=billing_period,
        currency=order.currency,
        subtotal_cents=order.subtotal_cents,
        tax_cents=order.tax_cents,
        total_cents=order.total_cents,
    )
    with connection.cursor() as cursor:
        cursor.execute(_NUMBER)
        invoice.pk, invoice.issued_at = cursor.fetchone()
        invoice.pdf = pdf.render(_document(invoice, order))
        cursor.execute(_INSERT, vars(invoice))
        if cursor.fetchone():
            return invoice
    # Another worker was faster: our insert waited for its commit, so the row is there to be read.
    return Invoice.objects.get(order_id=order_id, billing_period=billing_period)


def billing_period_of(order: Any) -> str:
    """The month (`YYYY-MM`, UTC) that an order is invoiced in: that of its completion.

    From the order and not from the clock, so that a rerun in the next month finds this month's invoice.
    """
    return (order.completed_at or order.created_at).astimezone(UTC).strftime("%Y-%m")


def _document(invoice: Invoice, order: Any) -> pdf.Document:
    return pdf.Document(
        number=invoice.number,
        order_id=order.pk,
        billing_period=invoice.billing_period,
        issued_at=invoice.issued_at,
        customer_name=order.customer.name,
        customer_email=order.receipt_email or order.customer.email,
        currency=invoice.currency,
        subtotal_cents=invoice.subtotal_cents,
        tax_cents=invoice.tax_cents,
        total_cents=invoice.total_cents,
        lines=[
            pdf.Line(item.product.sku, item.quantity, item.unit_price_cents)
            for item in order.items.select_related("product").order_by("pk")
        ],
    )
