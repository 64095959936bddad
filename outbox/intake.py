"""How a message begins: its row, and the word to a relay that is idle."""

from __future__ import annotations

import uuid
from typing import Any

from django.db import connection

from outbox.statement import one

CHANNEL = "outbox"

# Wakes a relay that has declared itself idle. NOTIFY serialises the commits of all who use it, so that a
# busy system must not: with every relay at work the subquery finds no row and nothing is sent.
WAKE = f"SELECT pg_notify('{CHANNEL}', '') FROM outbox_relayprocess WHERE idle LIMIT 1"


def insert(rows: list[dict[str, Any]]) -> None:
    """Write messages, in one statement. Those whose dedup key is taken by an open message are left out.

    A message with an ordering key starts as blocked: the relay promotes the head of each group, one at a
    time, so that producers of one group need not wait for each other.
    """
    columns = (
        "message_id, task, args, kwargs, headers, correlation_id,"
        " queue, ordering_key, passes_over_dead, dedup_key, replays"
    )
    row = (
        "(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s,"
        " CASE WHEN %s <> '' THEN 'blocked' WHEN %s > 0 THEN 'scheduled' ELSE 'pending' END,"
        " clock_timestamp() + %s * interval '1 second')"
    )
    names = columns.replace(",", "").split()
    parameters: list[Any] = []
    for values in rows:
        parameters += [values[name] for name in names]
        parameters += [values["ordering_key"], values["delay"], values["delay"]]
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH added AS (INSERT INTO outbox_outboxmessage ({columns}, status, deliver_at)"
            f" VALUES {', '.join([row] * len(rows))}"
            " ON CONFLICT (dedup_key) WHERE status IN ('scheduled', 'blocked', 'pending', 'published')"
            f" AND NOT dedup_key = '' DO NOTHING) {WAKE}",
            parameters,
        )


def knows(message_id: uuid.UUID) -> bool:
    """Whether there is a row for this message, whatever its status."""
    return one("SELECT true FROM outbox_outboxmessage WHERE message_id = %(id)s", id=message_id) is not None


def has_open(row: dict[str, Any]) -> bool:
    """Whether the message that has this row's id is the same call, from the same producer, and will still run."""
    same = one(
        """
        SELECT 1 FROM outbox_outboxmessage
        WHERE message_id = %(message_id)s AND task = %(task)s AND args = %(args)s::jsonb
          AND kwargs = %(kwargs)s::jsonb AND headers = %(headers)s::jsonb
          AND status IN ('scheduled', 'blocked', 'pending', 'published')
        """,
        **row,
    )
    return same is not None
