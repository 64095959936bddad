"""The rows of reconciliation's findings: one from its first sight until it is gone; the repair is started again now and
then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Q

from orders.events import announce
from payments.models import Finding

#: Those that are not for a person, nor wait for somebody else.
_MENDED = (Finding.Action.PROCESSING_REARMED, Finding.Action.REFUND_REQUESTED)


@dataclass(frozen=True)
class Difference:
    """One thing that does not agree, and what is done about it.

    `excess_cents` was taken too much: when it is given back at the gateway, nothing differs any more.
    """

    kind: Finding.Kind
    subject: str
    order_id: int | None
    detail: str
    action: Finding.Action
    excess_cents: int = 0


def record(differences: Sequence[Difference], now: datetime) -> int:
    """Write what a run that began at `now` found; returns how many earlier findings are gone."""
    for difference in differences:
        _keep(difference, now)
    # Every open finding was looked at again in this run, so one that was not seen is gone. `__lt`: a run that
    # started later than this one may already have seen what this one did not.
    gone = Finding.objects.filter(resolved_at__isnull=True, last_seen_at__lt=now)
    return gone.update(resolved_at=now)


def follow(subject: str, difference: Difference | None, now: datetime) -> None:
    """Write what is wrong with one subject as soon as it is known: this alone, or nothing any more."""
    others = Finding.objects.filter(subject=subject, resolved_at__isnull=True)
    if difference is not None:
        _keep(difference, now)
        others = others.exclude(kind=difference.kind)
    others.update(resolved_at=now)


def _keep(difference: Difference, now: datetime) -> None:
    # One that was gone and is back is a new one.
    Finding.objects.filter(
        kind=difference.kind, subject=difference.subject, resolved_at__isnull=False
    ).update(mended_at=None, first_seen_at=now)
    Finding.objects.update_or_create(
        kind=difference.kind,
        subject=difference.subject,
        defaults={
            "order_id": difference.order_id,
            "detail": difference.detail[:500],
            "action": difference.action,
            "last_seen_at": now,
            "resolved_at": None,
        },
    )


def heal(differences: Sequence[Difference], now: datetime, mend_again: timedelta) -> None:
    """Start the repair of each, at most once in `mend_again`."""
    due = Q(mended_at__isnull=True) | Q(mended_at__lte=now - mend_again)
    for difference in differences:
        if difference.action not in _MENDED or difference.order_id is None:
            continue
        # The update is also the claim: of two runs at once, the second waits here and then finds it mended.
        finding = Finding.objects.filter(due, kind=difference.kind, subject=difference.subject)
        if not finding.update(mended_at=now):
            continue
        rearmed = difference.action == Finding.Action.PROCESSING_REARMED
        announce("order.process_due" if rearmed else "order.refund_due", difference.order_id)
