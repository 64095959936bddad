"""What has ended, counted once for ever: totals that stay when the rows are pruned.

The rescuer counts what has ended since the last count, in rows of a few numbers; a reader adds what has ended since then.
So a scrape costs what happened lately, and no message pays anything: nothing is written with it, and no row of a counter
is what settlements wait for.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from django.db import connection, transaction

from outbox.sql import CANCELLED, DEAD, DONE, OPEN_BY_INDEX
from outbox.status import Status

#: Upper bounds, in seconds, of the time from enqueueing to completion: an answer, a retry, a back-off, a day.
BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0)


_SINCE = "SELECT coalesce(max(counted_until), '-infinity')::text FROM outbox_tally"


def _ended(until: str) -> str:
    return f"""
    SELECT queue, status, count(*) AS count, sum(extract(epoch FROM done_at - created_at))::float8 AS latency_s,
           array_length(%(buckets)s, 1) - width_bucket(extract(epoch FROM done_at - created_at)::float8, %(buckets)s)
               AS bounds_kept
    FROM outbox_outboxmessage
    -- The constant tells the planner how few rows that is; the query is right when one was counted in between.
    WHERE done_at >= %(since)s::timestamptz AND {until}
      AND done_at >= coalesce((SELECT max(counted_until) FROM outbox_tally), '-infinity')
      AND status IN ({DONE}, {CANCELLED})
    GROUP BY queue, status, bounds_kept
"""


def count_once() -> None:
    """Count what has ended, up to a time at which no row can end any more. One at a time; a second one does nothing."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            f"SELECT pg_try_advisory_xact_lock(hashtext('outbox.totals')), clock_timestamp(), ({_SINCE})"
        )
        locked, now, since = cursor.fetchone()
        if not locked:
            return
        # (Of transactions of another role the start is hidden, unless ours has pg_read_all_stats: use one role.)
        # A row may say that it ended before this moment and not be committed yet; then its transaction is open, and
        # began before it said so. What ended before the oldest open transaction began is therefore all there is.
        # The clock was read before they are looked at: one that begins after the look must not end before `until`. And they
        # are looked at before the statement that counts begins: what that one does not see must not end before `until`, either.
        cursor.execute(
            "SELECT least(%s, min(xact_start)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
            [now],
        )
        (until,) = cursor.fetchone()
        cursor.execute(
            f"""
            INSERT INTO outbox_tally (queue, status, bounds_kept, count, latency_s, counted_until)
            SELECT queue, status, bounds_kept, count, latency_s, %(until)s FROM ({_ended("done_at < %(until)s")}) e
            ON CONFLICT (queue, status, bounds_kept) DO UPDATE SET count = outbox_tally.count + excluded.count,
                latency_s = outbox_tally.latency_s + excluded.latency_s, counted_until = excluded.counted_until
            """,
            {"buckets": list(BUCKETS), "since": since, "until": until},
        )


@dataclass
class Total:
    """Of one queue, ever: messages `enqueued`, those that are `done`, and of these `latency_s`, the sum, and `buckets`:
    how many took at most each of `BUCKETS`. None of them ever falls.
    """

    enqueued: int = 0
    done: int = 0
    latency_s: float = 0.0
    buckets: dict[float, int] = field(default_factory=lambda: dict.fromkeys(BUCKETS, 0))


def totals() -> dict[str, Total]:
    """The totals of each queue that was ever used."""
    unended = " UNION ALL ".join(
        f"SELECT queue, 'not ended', 0, count(*), 0 FROM outbox_outboxmessage WHERE {condition} GROUP BY queue"
        for condition in (*OPEN_BY_INDEX.values(), f"status = {DEAD}")
    )
    found: dict[str, Total] = {}
    with connection.cursor() as cursor:
        # But for the hint to the planner one statement, so that what ends or is counted just now is in one of the
        # parts, and not in none or two.
        cursor.execute(_SINCE)
        (since,) = cursor.fetchone()
        cursor.execute(
            "SELECT queue, status, bounds_kept, sum(count), sum(latency_s) FROM ("
            " SELECT queue, status, bounds_kept, count, latency_s FROM outbox_tally"
            f" UNION ALL SELECT queue, status, bounds_kept, count, latency_s FROM ({_ended('true')}) e"
            f" UNION ALL {unended}"
            ") counted GROUP BY 1, 2, 3",
            {"buckets": list(BUCKETS), "since": since},
        )
        for queue, status, bounds_kept, count, latency_s in cursor.fetchall():
            total = found.setdefault(queue, Total())
            total.enqueued += int(count)
            if status == Status.DONE:
                total.done += int(count)
                total.latency_s += latency_s
                for bound in BUCKETS[len(BUCKETS) - bounds_kept :]:
                    total.buckets[bound] += int(count)
    return found
