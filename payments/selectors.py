"""What others may read of payments."""

from __future__ import annotations

from collections.abc import Sequence

from payments.models import Finding, Invoice, Refund


def invoices_of(order_id: int) -> Sequence[Invoice]:
    """The order's invoices, oldest first, without their PDFs."""
    return list(Invoice.objects.filter(order_id=order_id).defer("pdf").order_by("pk"))


def refund_of(order_id: int) -> Refund | None:
    """The order's refund, whatever became of it; None when none was asked for."""
    return Refund.objects.filter(order_id=order_id).first()


def open_findings() -> Sequence[Finding]:
    """The differences between the gateway's ledger and the orders that the last reconciliation left, oldest
    first.
    """
    return list(Finding.objects.filter(resolved_at__isnull=True).order_by("first_seen_at", "pk"))
