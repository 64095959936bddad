"""Every transition of a message but those to dead, which `outbox.dead_lettering` has.

Each is one guarded SQL statement whose WHERE says what must still be true.
A transition that finds its guard broken changes nothing and says so; it is never forced. All deadlines
compare with `clock_timestamp()` in the database: a worker's clock may be hours off, and `now()` stands
still inside a long transaction.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

from django.db import connection, transaction

from outbox.broker.envelope import RETRIES_HEADER
from outbox.claims import Claimed
from outbox.dead_letters import tell
from outbox.groups import promote_next
from outbox.prepared import Prepared, decoded, one, storable
from outbox.rows import WAKE_FOR_HEADS, NewMessage, insert
from outbox.sql import (
    BEGUN,
    BLOCKED,
    CANCELLED,
    DEAD,
    DONE,
    ERROR,
    HELD,
    LIVE,
    OF_WORKER,
    OPEN,
    PENDING,
    PUBLISHED,
    SCHEDULED,
    TABLE_BYTES,
    with_error,
)

_RESET = "publish_count = 0, published_at = NULL, started_at = NULL, lease_token = NULL, lease_until = NULL"
#: So that what went wrong for many messages at once does not come back at once.
_JITTER = "(1 - 0.5 * random())"
#: Seconds before a run that may have crashed its backend, or met an unknown error, is run again: six times as long after
#: each, so that the default of 5 deliveries takes minutes.
_INTERRUPTED = f"{_JITTER} * least(300, power(6, least({BEGUN}, 9) - 1))"

# What every message costs, so it is prepared; all others are for messages in trouble.
_DONE = Prepared(
    f"""
    UPDATE outbox_outboxmessage
    SET status = {DONE}, done_at = clock_timestamp(), attempts = attempts + 1, deliveries = 0,
        published_at = coalesce(published_at, clock_timestamp()),
        started_at = coalesce(started_at, clock_timestamp()), lease_token = NULL, lease_until = NULL
    WHERE {LIVE} AND {HELD}
    RETURNING id, {TABLE_BYTES}
    """,
    id="uuid", generation="int", token="uuid",
)  # fmt: skip


def settle(claimed: Claimed, children: list[NewMessage] | None = None) -> bool:
    """The run ended well: done, with its children, in one transaction. False when the claim was lost meanwhile."""
    if not (claimed.ordering_key or children or claimed.replays):
        # Alone the statement is a transaction by itself: BEGIN and COMMIT, or a savepoint inside of the caller's
        # transaction, would be two more round trips for every message.
        return _done(claimed)
    # Nothing in here is caught: an error ends the caller's transaction, too.
    with transaction.atomic(savepoint=False):
        if not _done(claimed):
            return False
        if claimed.ordering_key:
            promote_next(claimed.ordering_key)
        if children:
            insert(children)
        if claimed.replays:
            tell("on_resolved", message_id=claimed.message_id, headers=_headers(claimed.message_id))
    return True


def _done(claimed: Claimed) -> bool:
    row = _DONE.one(id=claimed.message_id, generation=claimed.generation, token=claimed.token)
    return row is not None


def retry(claimed: Claimed, *, delay_s: float, error: str) -> bool:
    """The run failed and has tries left: the same row again after `delay_s`, as the next generation."""
    run = claimed.message_id, claimed.generation, claimed.token
    ended = "attempts = attempts + 1, deliveries = 0,"
    return _again(*run, delay=delay_s, error=error, ended=ended) is not None


def defer(claimed: Claimed, *, delay_s: float, reason: str) -> bool:
    """Not now: the same row again after `delay_s`, as the next generation, no attempt spent."""
    run = claimed.message_id, claimed.generation, claimed.token
    return _again(*run, delay=delay_s, error=reason, ended="deliveries = 0,") is not None


def interrupt(claimed: Claimed, *, error: str, max_deliveries: int) -> float | None:
    """The run met an error of the database that it may have caused itself: again, no attempt spent, the delivery counted.

    Returns the seconds until then, which grow with each delivery; None when this was the last of `max_deliveries`, or the
    claim was lost.
    """
    return _again(
        claimed.message_id, claimed.generation, claimed.token,
        error=error, ended=f"deliveries = {BEGUN},", wait=_INTERRUPTED,
        guard=f"{BEGUN} < %(max)s", max=max_deliveries,
    )  # fmt: skip


def defer_unable(claimed: Claimed, *, error: str) -> float | None:
    """The database cannot do it now: again, nothing spent. Returns the seconds until then; None when the claim was lost.

    They grow with the time since the first of these errors in a row, up to half a minute.
    """
    since = _first("unable_since")
    return _again(
        claimed.message_id, claimed.generation, claimed.token,
        error=error, more=f", 'unable_since', {since}", ended="deliveries = 0,", wait=f"{_JITTER} * {_growing(since, 30)}",
    )  # fmt: skip


def defer_skewed(
    message_id: uuid.UUID, generation: int, *, token: uuid.UUID | None, error: str, grace_s: float
) -> bool:
    """This worker does not know the task, or not with these arguments: a worker of another version may.

    Not now, no attempt spent, after a delay that grows as the time since the first of these refusals does, from 1 s to
    5 min. False when they have gone on for `grace_s` seconds, or the claim was lost. `token`: the claim's, None without.
    """
    since = _first("skewed_since")
    delay_s = _again(
        message_id, generation, token,
        error=error, more=f", 'skewed_since', {since}", ended="deliveries = 0,", wait=_growing(since, 300),
        guard=f"clock_timestamp() < {since} + %(grace)s * interval '1 second'", grace=grace_s,
    )  # fmt: skip
    return delay_s is not None


def _first(name: str) -> str:
    """SQL: when the first of these errors in a row was. It is carried from one to the next, under this name."""
    return f"coalesce((errors -> -1 ->> '{name}')::timestamptz, clock_timestamp())"


def _growing(since: str, longest_s: int) -> str:
    """SQL: as many seconds as have passed since then, so that the wait doubles; from 1 to `longest_s`."""
    return f"greatest(1, least({longest_s}, extract(epoch FROM clock_timestamp() - {since})))"


def _again(
    message_id: uuid.UUID,
    generation: int,
    token: uuid.UUID | None,
    *,
    error: str,
    ended: str,
    more: str = "",
    wait: str = "%(delay)s",
    guard: str = "true",
    **values: Any,
) -> float | None:
    # The generation rises, so that a late copy of this one can neither jump the delay nor run beside the next.
    row = one(
        f"""
        UPDATE outbox_outboxmessage
        SET status = {SCHEDULED}, generation = generation + 1, {ended} {_RESET}, errors = {with_error(more)},
            deliver_at = clock_timestamp() + {wait} * interval '1 second'
        WHERE {LIVE} AND {HELD} AND {guard}
        RETURNING extract(epoch FROM deliver_at - clock_timestamp())::float8
        """,
        id=message_id, generation=generation, token=token, error=storable(error), **values,
    )  # fmt: skip
    return row[0] if row else None


def lost(
    message_id: uuid.UUID,
    generation: int,
    *,
    worker: str | None,
    error: str,
    delay_s: float = 1.0,
    counted: bool = True,
) -> bool:
    """The worker's parent saw the child that ran this message die: run it again, the delivery stays counted.

    Only the lease of `worker`, that child, is taken back: another may have claimed the message since, or before it.
    `counted`: False for an end that says nothing about the message: the child was stopped together with its worker, or
    the database server cannot do it now.
    """
    row = one(
        f"""
        UPDATE outbox_outboxmessage
        SET status = {SCHEDULED}, errors = {ERROR},
            deliveries = greatest({BEGUN} - %(given_back)s, 0),
            deliver_at = clock_timestamp() + %(delay)s * interval '1 second', {_RESET}
        WHERE {LIVE} AND {OF_WORKER}
        RETURNING id
        """,
        id=message_id, generation=generation, worker=worker, error=storable(error), delay=delay_s,
        given_back=int(not counted),
    )  # fmt: skip
    return row is not None


def give_back(incarnation: uuid.UUID) -> int:
    """A worker has stopped, its processes with it: what they had claimed may run elsewhere, now and uncounted.

    Returns how many messages that were. Without this they would wait until the worker counts as dead, and five stops
    in the way of a long run would make its message poison.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            UPDATE outbox_outboxmessage
            SET status = {PENDING}, deliveries = greatest(deliveries - 1, 0), errors = {ERROR},
                started_at = NULL, lease_token = NULL, lease_until = NULL
            WHERE status = {PUBLISHED} AND started_at IS NOT NULL AND lease_token IS NOT NULL
              AND split_part(worker, ':', 1) = %(incarnation)s::text
            """,
            {"incarnation": str(incarnation), "error": "its worker was stopped before the run ended"},
        )
        return cursor.rowcount


def cancel(message_id: uuid.UUID, *, reason: str) -> bool:
    """Take back a message that no run has begun, or discard a dead one; its group moves on. False when too late.

    A row that is locked is running, in a transaction that may last as long as its task: it is not waited for here.
    """
    with transaction.atomic():
        row = one(
            f"""
            UPDATE outbox_outboxmessage
            SET status = {CANCELLED}, done_at = clock_timestamp(), errors = {ERROR}
            WHERE id = (
                SELECT id FROM outbox_outboxmessage WHERE message_id = %(id)s AND lease_token IS NULL
                  AND (status IN {OPEN} OR status = {DEAD})
                FOR UPDATE SKIP LOCKED
            )
            RETURNING ordering_key, replays, headers
            """,
            id=message_id, error=storable(f"cancelled: {reason}"),
        )  # fmt: skip
        if row is None:
            return False
        ordering_key, replays, headers = row
        if ordering_key:
            promote_next(ordering_key)
        if replays:
            tell("on_cancelled", message_id=message_id, headers=decoded(headers), reason=reason)
    return True


def replay(message_id: uuid.UUID, *, retries: int | None = None) -> bool:
    """Replay a dead message: the same row as a new generation, with all its attempts again. False if not dead.

    `retries`: how many this replay may have, whatever its task says.

    Of a group it becomes the head again by the order of enqueueing, once nothing else of the group is active.
    """
    row = one(
        f"""
        WITH again AS (
            UPDATE outbox_outboxmessage
            SET status = CASE WHEN ordering_key = '' THEN {PENDING} ELSE {BLOCKED} END, generation = generation + 1,
                attempts = 0, deliveries = 0, replays = replays + 1, done_at = NULL,
                headers = (headers - %(name)s::text) || %(given)s::jsonb,
                deliver_at = clock_timestamp(), {_RESET}
            WHERE message_id = %(id)s AND status = {DEAD}
            RETURNING id
        ), woken AS ({WAKE_FOR_HEADS})
        SELECT id, (SELECT count(*) FROM woken) FROM again
        """,
        id=message_id, name=RETRIES_HEADER, given=json.dumps({} if retries is None else {RETRIES_HEADER: retries}),
    )  # fmt: skip
    return row is not None


def _headers(message_id: uuid.UUID) -> Any:
    row = one("SELECT headers FROM outbox_outboxmessage WHERE message_id = %(id)s", id=message_id)
    return decoded(row[0]) if row else {}
