"""Deletion of operations that ended long ago, with what came of each of their dead letters."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import Value
from django.db.models.functions import Now

from dlq import conf
from dlq.operations.models import Operation

#: Operations deleted in one pass: each may have an item for each of 100,000 dead letters.
BATCH = 10


def delete_ended() -> int:
    """Delete those that ended more than `DLQ_OPERATIONS_RETENTION` ago, the oldest first; returns how many."""
    kept = Value(timedelta(seconds=conf.operations_retention_s()))
    old = Operation.objects.filter(ended_at__lt=Now() - kept).order_by("ended_at")
    chosen = list(old.values_list("pk", flat=True)[:BATCH])
    if chosen:
        Operation.objects.filter(pk__in=chosen).delete()
    return len(chosen)
