"""Ordered groups: which of the messages that wait for their group may become its head.

One message of an ordering key is active at a time, its head; the others are blocked. After a head's end its successor
follows in the same transaction (`promote_next`), so that a group does not wait for the relay; the relay's pass
(`promote_heads`) finds the first message of a group, and whatever the other could not see.
"""

from __future__ import annotations

from outbox.prepared import Prepared
from outbox.rows import WAKE
from outbox.sql import ACTIVE, BLOCKED, DEAD, DUE, TABLE_BYTES


def _next_head(key: str) -> str:
    """SQL for the id of the blocked message that may become the head of the group `key` now; no row if none may.

    The oldest blocked one, unless the group has a head, or holds behind a dead message. That one holds all that are
    younger, and a replayed message does not wait for what was enqueued after it.
    Sub-selects of one row each, and a range for an equation, keep the planner to the partial indexes, also where
    its statistics are old.
    """
    return f"""
        SELECT head.id FROM (
            SELECT id, replays FROM outbox_outboxmessage b
            WHERE b.status = {BLOCKED} AND b.ordering_key >= {key} AND b.ordering_key <= {key}
            ORDER BY b.ordering_key, id LIMIT 1) head
        WHERE (SELECT true FROM outbox_outboxmessage a WHERE a.ordering_key = {key} AND a.ordering_key <> ''
               AND a.status IN {ACTIVE} LIMIT 1) IS NULL
          AND (SELECT true FROM outbox_outboxmessage d WHERE d.ordering_key = {key} AND d.status = {DEAD}
               AND NOT d.passes_over_dead AND (head.replays = 0 OR d.id < head.id) LIMIT 1) IS NULL
    """


def _promote(heads: str) -> str:
    return f"""
        UPDATE outbox_outboxmessage SET status = {DUE}, deliver_at = greatest(deliver_at, clock_timestamp())
        WHERE status = {BLOCKED} AND id = ANY(ARRAY({heads}))
    """


_PROMOTE_NEXT = Prepared(
    f"""
    WITH next AS ({_promote(_next_head("%(key)s"))} RETURNING id), woken AS ({WAKE})
    SELECT CASE WHEN id IS NOT NULL THEN (SELECT count(*) FROM woken) END, {TABLE_BYTES}
    FROM (SELECT) one_row LEFT JOIN next ON true
    """,
    key="text",
)
# Walks the groups by an index skip scan: the cost is that of the groups that wait, not of their messages.
_PROMOTE_HEADS = Prepared(f"""
    WITH RECURSIVE groups AS (
        -- One promoter at a time: two with different snapshots could choose two heads for one group.
        SELECT CASE WHEN pg_try_advisory_xact_lock(hashtext('outbox.promote_heads'))
               THEN (SELECT min(ordering_key) FROM outbox_outboxmessage WHERE status = {BLOCKED}) END AS key
        UNION ALL
        SELECT (SELECT min(ordering_key) FROM outbox_outboxmessage WHERE status = {BLOCKED} AND ordering_key > key)
        FROM groups WHERE key IS NOT NULL
    ), heads AS (
        SELECT head.id FROM groups CROSS JOIN LATERAL ({_next_head("key")}) head WHERE key IS NOT NULL
    )
    {_promote("SELECT id FROM heads")}
    RETURNING id, {TABLE_BYTES}
""")


def promote_next(ordering_key: str) -> None:
    """Make the next message of the group its head, if one may be; in the transaction that ends the head before it.

    Under concurrency the partial unique index decides; the relay's own pass heals what this one could not see.
    """
    _PROMOTE_NEXT.one(key=ordering_key)


def promote_heads() -> int:
    """Make the next message of every group its head where one may be; returns of how many groups.

    Raises IntegrityError where a transaction that committed meanwhile has made another message the head of one of them,
    such as a cancellation; then none is promoted, and the next pass sees it.
    """
    return len(_PROMOTE_HEADS.all())
