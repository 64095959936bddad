"""What is on record of an action that sends no selection: who, when, why and how much. The list of operations has them all."""

from __future__ import annotations

from django.db.models.functions import Now
from django.utils import timezone

from dlq.error_info import shortened
from dlq.masking import masked_text
from dlq.operations.models import Kind, Operation, Progress


def record(
    kind: Kind,
    what: str,
    *,
    actor: str,
    reason: str = "",
    chosen_by: str = "",
    selected: int = 0,
    state: Progress = Progress.DONE,
) -> Operation:
    """Write it down, in the caller's transaction. `what`: a line of its history. `state`: running where an outcome is awaited."""
    at = timezone.now().isoformat(timespec="seconds")
    return Operation.objects.create(
        kind=kind,
        state=state,
        actor=actor[:255],
        reason=shortened(reason).strip(),
        chosen_by=masked_text(chosen_by),
        selected=selected,
        started_at=Now(),
        ended_at=Now() if state == Progress.DONE else None,
        history=[{"at": at, "what": masked_text(what), "actor": actor}],
    )
