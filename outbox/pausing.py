"""Pause a queue: the relay publishes nothing to it until an operator resumes it; its messages wait as rows and spend nothing.

What the broker holds already runs. The alert `queue_unusable` names a paused queue for as long as it is, so that it is not
forgotten.
"""

from __future__ import annotations

from django.db import connection

from outbox import conf
from outbox.prepared import one, storable
from outbox.rows import WAKE


def pause(queue: str, *, actor: str, reason: str = "") -> bool:
    """Publish nothing to this queue from the relay's next pass on. False when it is paused already.

    Raises ValueError for a queue that `OUTBOX_QUEUES` does not name, and without an actor.
    """
    if queue not in conf.queues():
        raise ValueError(f"there is no queue {queue!r}; the queues are {', '.join(conf.queues())}")
    if not actor:
        raise ValueError("name the operator who pauses it")
    said = f"paused by {actor}" + (f": {reason}" if reason else "")
    row = one(
        """
        INSERT INTO outbox_unusablequeue (queue, reason, paused_by) VALUES (%(queue)s, %(reason)s, %(actor)s)
        ON CONFLICT (queue) DO UPDATE
        SET reason = excluded.reason, paused_by = excluded.paused_by, since = clock_timestamp()
        WHERE outbox_unusablequeue.paused_by = '' RETURNING queue
        """,
        queue=queue, reason=storable(said), actor=storable(actor),
    )  # fmt: skip
    return row is not None


def resume(queue: str) -> bool:
    """Publish to it again, at once. False when it is not paused."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH gone AS (DELETE FROM outbox_unusablequeue WHERE queue = %s AND paused_by <> '' RETURNING queue),
                 woken AS ({WAKE})
            SELECT queue, (SELECT count(*) FROM woken) FROM gone
            """,
            [queue],
        )
        return cursor.fetchone() is not None


def paused() -> list[tuple[str, str]]:
    """(queue, who and why) of all that are paused."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT queue, reason FROM outbox_unusablequeue WHERE paused_by <> '' ORDER BY queue")
        found: list[tuple[str, str]] = cursor.fetchall()
    return found
