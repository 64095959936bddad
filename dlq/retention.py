"""Deletion of dead letters that were closed long ago; what is counted of them stays."""

from __future__ import annotations

from datetime import timedelta

from django.db import connection, transaction
from django.db.models import Value
from django.db.models.functions import Now

from dlq.models import DeadLetter

#: Dead letters deleted in one transaction, so that pruning years of them holds no long lock.
BATCH = 1_000

_COUNT = """
    INSERT INTO dlq_tally (queue, task, exception, what, count)
    SELECT queue, task, exception, what, count(*)
    FROM dlq_letterevent
    WHERE letter_id = ANY(%s)
    GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
    ON CONFLICT (queue, task, exception, what) DO UPDATE SET count = dlq_tally.count + excluded.count
"""


def delete_closed(*, older_than: timedelta, batch: int = BATCH) -> int:
    """Delete the dead letters that were closed before, with their events, `batch` in a transaction. Returns how many."""
    deleted = 0
    while count := _delete(older_than, batch):
        deleted += count
    return deleted


def _delete(older_than: timedelta, batch: int) -> int:
    old = DeadLetter.objects.filter(closed_at__lt=Now() - Value(older_than)).order_by("closed_at")
    with transaction.atomic():
        # Locked, so that none is open again when it goes, and nothing happens to it after it was counted.
        chosen = list(old.select_for_update(skip_locked=True).values_list("pk", flat=True)[:batch])
        with connection.cursor() as cursor:
            cursor.execute(_COUNT, [chosen])
        DeadLetter.objects.filter(pk__in=chosen).delete()
    return len(chosen)
