"""A few figures of the whole outbox that cost the same beside a million messages, to be sampled for charts.

In one statement, of which no part reads more than `COUNTED` rows or what ended in the last seconds.
"""

from __future__ import annotations

from django.db import connection

from outbox.sql import DONE, INDEX_ORDER, OPEN_BY_INDEX

#: Rows of one state that are counted; a backlog that is larger is drawn as large as this.
COUNTED = 20_000
#: Messages that ended last, of the last minute, from which the percentiles of the latency are computed.
LATENCIES = 1_000


def _counted(state: str) -> str:
    return (
        f"(SELECT count(*) FROM (SELECT FROM outbox_outboxmessage WHERE {OPEN_BY_INDEX[state]}"
        f" ORDER BY {INDEX_ORDER[state]} LIMIT {COUNTED}) m)"
    )


_SQL = f"""
SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('outbox_outboxmessage', 'id')::regclass), 0),
       (SELECT coalesce(sum(count), 0)::bigint FROM outbox_tally WHERE status = {DONE})
       + (SELECT count(*) FROM outbox_outboxmessage WHERE status = {DONE}
          AND done_at >= coalesce((SELECT max(counted_until) FROM outbox_tally), '-infinity')),
       {_counted("pending")}, {_counted("blocked")}, {_counted("published")}, {_counted("scheduled")},
       (SELECT percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM done_at - created_at))
        FROM (SELECT done_at, created_at, status FROM outbox_outboxmessage
              WHERE done_at > statement_timestamp() - interval '60 seconds' ORDER BY done_at DESC LIMIT {LATENCIES}) m
        WHERE status = {DONE})
"""


def series() -> dict[str, float]:
    """{series: number}, those that end in `_total` never fall.

    `messages_in_total`: the number of the newest message; one whose transaction was rolled back had a number, too.
    `messages_done_total`; `waiting`: messages that could run now, and of them `pending` those that are not handed to the
    broker yet; `scheduled`: retries and delays. `latency_p50_s`, `latency_p95_s`, `latency_p99_s`: seconds from enqueueing
    to completion, left out when nothing completed in the last minute.
    """
    with connection.cursor() as cursor:
        cursor.execute(_SQL)
        newest, done, pending, blocked, published, scheduled, latencies = cursor.fetchone()
    figures = {
        "messages_in_total": newest,
        "messages_done_total": done,
        "pending": pending,
        "waiting": pending + blocked + published,
        "scheduled": scheduled,
    }
    if latencies:
        figures |= dict(zip(("latency_p50_s", "latency_p95_s", "latency_p99_s"), latencies, strict=True))
    return figures
