"""Fragments of SQL: a message's states as literals, each and each set of them written once, and its list of errors.

The planner uses a partial index only where a query repeats the index's own condition: these are spelled as
`outbox.models` spells them.
"""

from __future__ import annotations

from collections.abc import Iterable

from outbox import status
from outbox.status import Status

#: Past errors kept on the row: enough to see a pattern, bounded so that a row cannot grow.
MAX_ERRORS = 10


def _any_of(states: Iterable[Status]) -> str:
    return "(" + ", ".join(f"'{state}'" for state in states) + ")"


SCHEDULED, BLOCKED, PENDING, PUBLISHED, DONE, DEAD, CANCELLED = (f"'{state}'" for state in Status)
#: Will still run.
OPEN = _any_of(status.OPEN)
#: Is the head of its group.
ACTIVE = _any_of(status.ACTIVE)
#: Can be claimed: the relay may have published a message although its mark was lost in a crash, or reverted.
CLAIMABLE = _any_of((Status.PENDING, Status.PUBLISHED))
#: The row of one copy, `id` and `generation`, while that copy may still run or be running.
LIVE = f"message_id = %(id)s AND generation = %(generation)s AND status IN {CLAIMABLE}"
#: This run's claim, and no other's.
HELD = "lease_token IS NOT DISTINCT FROM %(token)s"
#: Not claimed by another process than `worker`: what that one sees end badly says nothing about another's run.
OF_WORKER = "(lease_token IS NULL OR worker = %(worker)s)"
#: Runs that began, with the one that ends now: without a claim it was not counted when it began, and counts here.
BEGUN = "(deliveries + (lease_token IS NULL)::int)"
#: The messages of paused tasks are scheduled for then or later: those of each task in a span of its own, at as many microseconds
#: after its begin as their number says (up to 2.6 trillion), so that the index of scheduled messages has them together, in order.
PAUSED_UNTIL = f"'{status.PAUSED_UNTIL.isoformat(' ')}'::timestamptz"
PAUSED_SPAN = "interval '30 days'"
#: The state of a message that waits for nothing but its time.
DUE = f"CASE WHEN deliver_at > clock_timestamp() THEN {SCHEDULED} ELSE {PENDING} END"
#: The size of the table, looked up once a statement: the last column of what `outbox.prepared.Prepared` executes.
TABLE_BYTES = "(SELECT pg_relation_size('outbox_outboxmessage'))"
#: The open messages, one condition for each partial index. Asked for in one condition the planner would use none of
#: them, and read every row that is done.
OPEN_BY_INDEX = {
    "pending": f"status = {PENDING}",
    "scheduled": f"status = {SCHEDULED} AND deliver_at < {PAUSED_UNTIL}",
    "paused": f"status = {SCHEDULED} AND deliver_at >= {PAUSED_UNTIL}",
    "blocked": f"status = {BLOCKED}",
    "published": f"status = {PUBLISHED} AND started_at IS NULL",
    "running": f"status = {PUBLISHED} AND started_at IS NOT NULL",
}
#: The order that each of these indexes has, and no other: who asks for some of its rows in that order reads no others.
INDEX_ORDER = {
    "scheduled": "deliver_at",
    "paused": "deliver_at",
    "blocked": "ordering_key, id",
    "pending": "queue, id",
    "published": "queue, published_at",
    "running": "lease_until",
}


def with_error(more: str = "") -> str:
    """The row's `errors` with `error` at their end. `more`: SQL for further pairs of key and value, after a comma."""
    return f"""(
    SELECT coalesce(jsonb_agg(e ORDER BY n), '[]')
    FROM jsonb_array_elements(errors || jsonb_build_array(jsonb_build_object(
        'at', clock_timestamp(), 'error', %(error)s::text, 'worker', worker{more}))) WITH ORDINALITY AS x(e, n)
    WHERE n > jsonb_array_length(errors) + 1 - {MAX_ERRORS}
)"""


ERROR = with_error()
