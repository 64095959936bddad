"""Pruning of settled messages, in batches, so that no statement holds locks for long."""

from __future__ import annotations

import logging

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded
from django.db import connection

from outbox import conf, totals
from outbox.sql import CANCELLED, DONE

log = logging.getLogger(__name__)

BATCH = 5_000


def prune_once(*, older_than_s: float, batch: int = BATCH) -> int:
    """Delete up to `batch` done or cancelled messages that were settled more than `older_than_s` seconds ago.

    Dead messages stay: they are the dead-letter desk's, however old. So does what `outbox.totals` has yet to count.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            DELETE FROM outbox_outboxmessage WHERE id = ANY(ARRAY(
                SELECT id FROM outbox_outboxmessage
                WHERE done_at IS NOT NULL AND done_at < coalesce((SELECT max(counted_until) FROM outbox_tally), 'infinity')
                  AND done_at < (SELECT clock_timestamp()) - %s * interval '1 second'
                  AND status IN ({DONE}, {CANCELLED})
                ORDER BY done_at LIMIT %s FOR UPDATE SKIP LOCKED))
            """,
            [older_than_s, batch],
        )
        return cursor.rowcount


@shared_task(time_limit=600, soft_time_limit=570)
def prune() -> int:
    """Delete what is older than `OUTBOX_RETENTION`, batch by batch; returns how many messages went.

    What it does not come to in its time the next tick's run deletes.
    """
    totals.count_once()
    total = 0
    try:
        while count := prune_once(older_than_s=conf.retention_s()):
            total += count
            log.info("Pruned %d settled messages", total)
    except SoftTimeLimitExceeded:
        log.warning("Pruned %d settled messages, and there are more", total)
    return total
