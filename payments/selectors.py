"""What others may read of payments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from django.db.models import Count

from payments.models import Dispute, Finding, Invoice, Refund


def invoices_of(order_id: int) -> Sequence[Invoice]:
    """The order's invoices, oldest first, without their PDFs."""
    return list(Invoice.objects.filter(order_id=order_id).defer("pdf").order_by("pk"))


def refund_of(order_id: int) -> Refund | None:
    """The order's refund, whatever became of it; None when none was asked for."""
    return Refund.objects.filter(order_id=order_id).first()


def disputes_of(order_id: int) -> Sequence[Dispute]:
    """The disputes of the order's payment, oldest first."""
    return list(Dispute.objects.filter(order_id=order_id).order_by("pk"))


def stats() -> dict[str, Counter[str]]:
    """Figures for metrics and alerts: how the gateway's ledger and the orders still differ.

    `open`: {kind: count}, every kind in it; `for_a_person`: the same of those that reconciliation does not mend itself.
    """
    found = {name: Counter(dict.fromkeys(Finding.Kind.values, 0)) for name in ("open", "for_a_person")}
    rows = Finding.objects.filter(resolved_at__isnull=True).values_list("kind", "action")
    for kind, action, count in rows.annotate(Count("pk")):
        found["open"][kind] += count
        if action == Finding.Action.NEEDS_A_PERSON:
            found["for_a_person"][kind] += count
    return found


def invariants() -> dict[str, list[str]]:
    """What the last reconciliation could not mend, for the control room."""
    found = Finding.objects.filter(resolved_at=None, action=Finding.Action.NEEDS_A_PERSON).order_by("pk")[
        :100
    ]
    return {"Orders and the gateway agree": [f"{finding.kind} {finding.subject}" for finding in found]}
