"""Questions about the outbox, for the API, the monitoring and the operator. They change nothing."""

from __future__ import annotations

from typing import Any

from django.db import connection

from outbox import conf, totals
from outbox.claims import REASONS
from outbox.models import OutboxMessage, Skipped
from outbox.relay.queries import REMEMBERED_S
from outbox.sql import INDEX_ORDER, OPEN_BY_INDEX


def messages_of(correlation_id: str) -> list[OutboxMessage]:
    """Every message of one story, oldest first."""
    return list(OutboxMessage.objects.filter(correlation_id=correlation_id).order_by("id"))


def backlog(limit: int) -> int:
    """How many messages are open, counted up to `limit` only, so that asking stays cheap."""
    counts = " + ".join(
        "(SELECT count(*) FROM"
        f" (SELECT FROM outbox_outboxmessage WHERE {condition} ORDER BY {INDEX_ORDER[state]} LIMIT %(n)s) m)"
        for state, condition in OPEN_BY_INDEX.items()
    )
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT least({counts}, %(n)s)", {"n": limit})
        return int(cursor.fetchone()[0])


def stats() -> dict[str, Any]:
    """The figures of the monitoring: per queue what is open, and what the last minute did."""
    known = conf.queues()
    queues: dict[str, dict[str, Any]] = {
        name: dict.fromkeys(("pending", "scheduled", "blocked", "published", "running"), 0)
        | {"oldest_pending_age_s": 0.0, "oldest_repeated_age_s": 0.0, "unusable": "", "unusable_for_s": 0.0}
        for name in known
    }
    done = dict.fromkeys(known, 0)
    failed = dict.fromkeys(known, 0)
    latency: dict[str, float] = dict.fromkeys(known, 0.0)
    with connection.cursor() as cursor:
        rows = " UNION ALL ".join(
            f"SELECT queue, '{state}' AS state, created_at, deliver_at, generation FROM outbox_outboxmessage WHERE {condition}"
            for state, condition in OPEN_BY_INDEX.items()
        )
        cursor.execute(
            f"""
            SELECT queue, state, count(*),
                   coalesce(extract(epoch FROM clock_timestamp() - min(greatest(created_at, deliver_at))), 0)::float8,
                   coalesce(extract(epoch FROM clock_timestamp()
                            - min(created_at) FILTER (WHERE generation > 1)), 0)::float8
            FROM ({rows}) open GROUP BY 1, 2
            """
        )
        for queue, state, count, age_s, repeated_age_s in cursor.fetchall():
            figures = queues.setdefault(queue, {"oldest_pending_age_s": 0.0, "oldest_repeated_age_s": 0.0})
            figures[state] = count
            figures["oldest_repeated_age_s"] = max(figures["oldest_repeated_age_s"], repeated_age_s)
            if state in ("pending", "published"):
                figures["oldest_pending_age_s"] = max(figures["oldest_pending_age_s"], age_s)
        cursor.execute(
            "SELECT queue, reason, extract(epoch FROM clock_timestamp() - since)::float8 FROM outbox_unusablequeue"
        )
        for queue, reason, for_s in cursor.fetchall():
            queues.setdefault(queue, {}).update(unusable=reason, unusable_for_s=for_s)
        cursor.execute(
            """
            SELECT queue, count(*) FILTER (WHERE status = 'done'), count(*) FILTER (WHERE status = 'dead'),
                   coalesce(avg(extract(epoch FROM done_at - created_at) * 1000)
                            FILTER (WHERE status = 'done'), 0)::float8
            FROM outbox_outboxmessage
            -- Not clock_timestamp(): compared with a volatile function, no row is found by the index.
            WHERE done_at > statement_timestamp() - interval '60 seconds' GROUP BY 1
            """
        )
        for queue, done_count, failed_count, latency_ms in cursor.fetchall():
            done[queue], failed[queue], latency[queue] = done_count, failed_count, latency_ms
        cursor.execute(
            "SELECT coalesce(sum(generation - 1), 0) FROM outbox_outboxmessage WHERE generation > 1"
        )
        (retries,) = cursor.fetchone()
        cursor.execute(
            "SELECT coalesce(sum(concurrency), 0), coalesce(sum(active), 0), count(*), coalesce(sum(memory_bytes), 0)"
            " FROM outbox_worker"
            " WHERE beat_at > clock_timestamp() - %s * interval '1 second'",
            [conf.worker_timeout_s()],
        )
        concurrency, active, workers, memory_bytes = cursor.fetchone()
        # The most that lived at one moment: a moment worth looking at is the first one, or one at which one began. Who
        # ended in order has no row, so that a deployment does not look like a loss.
        cursor.execute(
            """
            WITH lately AS (SELECT greatest(started_at, clock_timestamp() - %(s)s * interval '1 second') AS began,
                                   beat_at
                            FROM outbox_worker WHERE beat_at > clock_timestamp() - %(s)s * interval '1 second')
            SELECT coalesce(max(n), 0) FROM (
                SELECT (SELECT count(*) FROM lately w WHERE w.began <= m.began AND w.beat_at >= m.began) AS n
                FROM lately m) moments
            """,
            {"s": REMEMBERED_S},
        )
        (lately,) = cursor.fetchone()
    return {
        "totals": {queue: totals.nothing() for queue in known} | totals.totals(),
        "queues": queues,
        "done_last_minute": done,
        "failed_last_minute": failed,
        "avg_latency_ms": latency,
        "skipped": dict.fromkeys(REASONS, 0) | dict(Skipped.objects.values_list("reason", "count")),
        "retries": int(retries),
        "workers": {
            "count": workers,
            "lately": lately,
            "concurrency": int(concurrency),
            "active": int(active),
            "memory_bytes": int(memory_bytes),
        },
    }
