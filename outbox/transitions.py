"""Every transition of a message, each one guarded SQL statement whose WHERE says what must still be true.

A transition that finds its guard broken changes nothing and says so; it is never forced. All deadlines
compare with `clock_timestamp()` in the database: a worker's clock may be hours off, and `now()` stands
still inside a long transaction.
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.utils.module_loading import import_string

from outbox.broker.envelope import RETRIES_HEADER
from outbox.prepared import Prepared, decoded, one, storable
from outbox.refusal import Refused, refusal
from outbox.rows import WAKE, NewMessage, insert

#: Past errors kept on the row: enough to see a pattern, bounded so that a row cannot grow.
MAX_ERRORS = 10

_RESET = (
    """publish_count = 0, published_at = NULL, started_at = NULL, lease_token = NULL, lease_until = NULL"""
)
_DUE = "CASE WHEN deliver_at > clock_timestamp() THEN 'scheduled' ELSE 'pending' END"
#: Columns of a dead message that its letter has as they are.
_TOLD = ("task", "queue", "attempts", "worker")
_MINE = "message_id = %(id)s AND generation = %(generation)s AND status IN ('pending', 'published')"


def _with_error(more: str = "") -> str:
    return f"""(
    SELECT coalesce(jsonb_agg(e ORDER BY n), '[]')
    FROM jsonb_array_elements(errors || jsonb_build_array(jsonb_build_object(
        'at', clock_timestamp(), 'error', %(error)s::text, 'worker', worker{more}))) WITH ORDINALITY AS x(e, n)
    WHERE n > jsonb_array_length(errors) + 1 - {MAX_ERRORS}
)"""


_ERROR = _with_error()
#: When workers began to refuse this call, each of them: it is carried from one refusal to the next.
_SKEWED_SINCE = "coalesce((errors -> -1 ->> 'skewed_since')::timestamptz, clock_timestamp())"

#: A copy that names another task than the row is none of ours, whatever id and generation it carries.
_NAMED = "task = coalesce(%(task)s, task)"

#: What a run is told by its claim.
_CLAIMED = f"attempts, correlation_id, ordering_key, replays, headers ->> '{RETRIES_HEADER}', args, kwargs"

# What every message costs, so these are prepared; all others are for messages in trouble.
_CLAIM = Prepared(
    f"""
    UPDATE outbox_outboxmessage
    SET status = 'published', published_at = coalesce(published_at, clock_timestamp()),
        started_at = clock_timestamp(), lease_token = %(token)s, worker = %(worker)s,
        lease_until = clock_timestamp() + %(lease)s * interval '1 second', deliveries = deliveries + 1
    WHERE id = (
        SELECT id FROM outbox_outboxmessage WHERE {_MINE} AND {_NAMED} AND deliveries < %(max)s
          AND (lease_token IS NULL OR lease_until < clock_timestamp())
        FOR UPDATE SKIP LOCKED
    )
    RETURNING {_CLAIMED}
    """,
    id="uuid", generation="int", task="text", token="uuid", worker="text", lease="float8", max="int",
)  # fmt: skip
_LOCK = Prepared(
    f"""
    SELECT {_CLAIMED},
           set_config('idle_in_transaction_session_timeout', %(frozen)s, true)
    FROM outbox_outboxmessage
    WHERE {_MINE} AND {_NAMED} AND deliveries < %(max)s AND lease_token IS NULL FOR UPDATE SKIP LOCKED
    """,
    id="uuid", generation="int", task="text", max="int", frozen="text",
)  # fmt: skip
_DONE = Prepared(
    f"""
    UPDATE outbox_outboxmessage
    SET status = 'done', done_at = clock_timestamp(), attempts = attempts + 1, deliveries = 0,
        published_at = coalesce(published_at, clock_timestamp()),
        started_at = coalesce(started_at, clock_timestamp()), lease_token = NULL, lease_until = NULL
    WHERE {_MINE} AND lease_token IS NOT DISTINCT FROM %(token)s
    RETURNING id
    """,
    id="uuid", generation="int", token="uuid",
)  # fmt: skip


@dataclass(frozen=True)
class Claimed:
    """A claim that was won: `token` guards every later write of this run; None for a claim that is a row lock.

    `retries`: how many its replay may have, None where the task says. `args` and `kwargs` are the row's: what the copy
    carries is whatever somebody wrote into the broker.
    """

    message_id: uuid.UUID
    generation: int
    attempts: int
    correlation_id: str
    ordering_key: str
    replays: int
    retries: int | None
    args: list[Any]
    kwargs: dict[str, Any]
    token: uuid.UUID | None


def claim(
    message_id: uuid.UUID,
    generation: int,
    *,
    lease_s: float,
    worker: str,
    max_deliveries: int,
    task: str | None = None,
) -> Claimed | Refused:
    """Take the message for this run, for `lease_s` seconds; counts a delivery before the body runs.

    `task`: the task that the copy names, which must be the row's.

    The count is what ends a poison message: a run that kills its process never comes to write anything. A row that is
    locked is running: to wait for it would jump the back-off of the run that fails meanwhile, and hide its failure.
    """
    token = uuid.uuid4()
    row = _CLAIM.one(
        id=message_id,
        generation=generation,
        task=task,
        token=token,
        worker=worker,
        lease=lease_s,
        max=max_deliveries,
    )
    if row is None:
        return refusal(message_id, generation, max_deliveries=max_deliveries, task=task)
    return _claimed(message_id, generation, row, token)


def lock(
    message_id: uuid.UUID,
    generation: int,
    *,
    frozen_s: float,
    max_deliveries: int,
    task: str | None = None,
) -> Claimed | Refused:
    """Claim by row lock, inside the caller's transaction, which runs the body and settles before it commits.

    `frozen_s`: seconds of silence after which the database ends the transaction of a frozen holder. Deliveries are not
    counted here, where a count would be rolled back with the run; but those that others counted are at an end, too.
    """
    row = _LOCK.one(
        id=message_id,
        generation=generation,
        task=task,
        max=max_deliveries,
        frozen=f"{int(frozen_s * 1000)}",
    )
    if row is None:
        return refusal(message_id, generation, max_deliveries=max_deliveries, task=task)
    return _claimed(message_id, generation, row[:7], None)


def _claimed(
    message_id: uuid.UUID, generation: int, row: tuple[Any, ...], token: uuid.UUID | None
) -> Claimed:
    attempts, correlation_id, ordering_key, replays, retries, args, kwargs = row
    # A producer may have written a header of that name.
    allowed = int(retries) if retries and re.fullmatch("[0-9]{1,6}", retries) else None
    content = allowed, decoded(args), decoded(kwargs)
    return Claimed(
        message_id, generation, attempts, correlation_id, ordering_key, replays, *content, token=token
    )


def settle(claimed: Claimed, children: list[NewMessage] | None = None) -> bool:
    """The run ended well: done, with its children, in one transaction. False when the claim was lost meanwhile."""
    if not (claimed.ordering_key or children or claimed.replays):
        # Alone the statement is a transaction by itself: BEGIN and COMMIT, or a savepoint inside of the caller's
        # transaction, would be two more round trips for every message.
        return _done(claimed)
    with transaction.atomic():
        if not _done(claimed):
            return False
        if claimed.ordering_key:
            _promote_next(claimed.ordering_key)
        if children:
            insert(children)
        if claimed.replays:
            _hook("OUTBOX_ON_RESOLVED", message_id=claimed.message_id, headers=_headers(claimed.message_id))
    return True


def _done(claimed: Claimed) -> bool:
    row = _DONE.one(id=claimed.message_id, generation=claimed.generation, token=claimed.token)
    return row is not None


def retry(claimed: Claimed, *, delay_s: float, error: str) -> bool:
    """The run failed and has tries left: the same row again after `delay_s`, as the next generation."""
    return _again(claimed, delay_s=delay_s, error=error, ended="attempts = attempts + 1, deliveries = 0,")


def defer(claimed: Claimed, *, delay_s: float, reason: str) -> bool:
    """Not now: the same row again after `delay_s`, as the next generation, no attempt spent."""
    return _again(claimed, delay_s=delay_s, error=reason, ended="deliveries = 0,")


def interrupt(claimed: Claimed, *, delay_s: float, error: str) -> bool:
    """The run lost its database: again, no attempt spent, but the delivery stays counted."""
    return _again(claimed, delay_s=delay_s, error=error, ended="")


def defer_skewed(
    message_id: uuid.UUID, generation: int, *, token: uuid.UUID | None, error: str, grace_s: float
) -> bool:
    """This worker does not know the task, or not with these arguments: a worker of another version may.

    Not now, no attempt spent, after a delay that grows as the time since the first of these refusals does, from 1 s to
    5 min. False when they have gone on for `grace_s` seconds, or the claim was lost. `token`: the claim's, None without.
    """
    row = one(
        f"""
        UPDATE outbox_outboxmessage
        SET status = 'scheduled', generation = generation + 1, deliveries = 0, {_RESET},
            errors = {_with_error(f", 'skewed_since', {_SKEWED_SINCE}")},
            deliver_at = clock_timestamp() + greatest(interval '1 second',
                                                      least(interval '5 minutes', clock_timestamp() - {_SKEWED_SINCE}))
        WHERE {_MINE} AND lease_token IS NOT DISTINCT FROM %(token)s
          AND clock_timestamp() < {_SKEWED_SINCE} + %(grace)s * interval '1 second'
        RETURNING id
        """,
        id=message_id, generation=generation, token=token, error=storable(error), grace=grace_s,
    )  # fmt: skip
    return row is not None


def _again(claimed: Claimed, *, delay_s: float, error: str, ended: str) -> bool:
    # The generation rises, so that a late copy of this one can neither jump the delay nor run beside the next.
    row = one(
        f"""
        UPDATE outbox_outboxmessage
        SET status = 'scheduled', generation = generation + 1, {ended} {_RESET}, errors = {_ERROR},
            deliver_at = clock_timestamp() + %(delay)s * interval '1 second'
        WHERE {_MINE} AND lease_token IS NOT DISTINCT FROM %(token)s
        RETURNING id
        """,
        id=claimed.message_id, generation=claimed.generation, token=claimed.token,
        delay=delay_s, error=storable(error),
    )  # fmt: skip
    return row is not None


def bury(
    message_id: uuid.UUID,
    generation: int,
    *,
    guard: str,
    error: str,
    exception: BaseException | None = None,
    traceback: str = "",
    **values: Any,
) -> bool:
    """The message is dead, and the dead-letter desk has it, in one transaction. False when the guard did not hold.

    `guard` is SQL over the row, with `values`: what must still be true for the caller to say so.
    """
    with transaction.atomic():
        row = one(
            f"""
            UPDATE outbox_outboxmessage
            SET status = 'dead', done_at = clock_timestamp(), attempts = attempts + 1, errors = {_ERROR},
                published_at = coalesce(published_at, clock_timestamp()), lease_token = NULL, lease_until = NULL
            WHERE {_MINE} AND {guard}
            RETURNING ordering_key, passes_over_dead, correlation_id, args, kwargs, headers, {", ".join(_TOLD)}
            """,
            id=message_id, generation=generation, error=storable(error), **values,
        )  # fmt: skip
        if row is None:
            return False
        ordering_key, passes_over_dead, correlation_id, args, kwargs, headers, *told = row
        if ordering_key and passes_over_dead:
            _promote_next(ordering_key)
        _hook(
            "OUTBOX_ON_DEAD",
            message_id=message_id, generation=generation, exception=exception, error=error, traceback=traceback,
            args=decoded(args), kwargs=decoded(kwargs), headers=decoded(headers) | {"correlation_id": correlation_id},
            **dict(zip(_TOLD, told, strict=True)),
        )  # fmt: skip
    return True


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
        SET status = 'scheduled', errors = {_ERROR},
            deliveries = greatest(deliveries + (lease_token IS NULL)::int - %(given_back)s, 0),
            deliver_at = clock_timestamp() + %(delay)s * interval '1 second', {_RESET}
        WHERE {_MINE} AND (lease_token IS NULL OR worker = %(worker)s)
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
            SET status = 'pending', deliveries = greatest(deliveries - 1, 0), errors = {_ERROR},
                started_at = NULL, lease_token = NULL, lease_until = NULL
            WHERE status = 'published' AND started_at IS NOT NULL AND lease_token IS NOT NULL
              AND split_part(worker, ':', 1) = %(incarnation)s::text
            """,
            {"incarnation": str(incarnation), "error": "its worker was stopped before the run ended"},
        )
        return cursor.rowcount


def cancel(message_id: uuid.UUID, *, reason: str) -> bool:
    """Take back a message that no run has begun, or discard a dead one; its group moves on. False when too late.

    A row that is locked is running, in a transaction that may last as long as its task: nobody waits for that here.
    """
    with transaction.atomic():
        row = one(
            f"""
            UPDATE outbox_outboxmessage
            SET status = 'cancelled', done_at = clock_timestamp(), errors = {_ERROR}
            WHERE id = (
                SELECT id FROM outbox_outboxmessage WHERE message_id = %(id)s AND lease_token IS NULL
                  AND status IN ('scheduled', 'blocked', 'pending', 'published', 'dead')
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
            _promote_next(ordering_key)
        if replays:
            _hook("OUTBOX_ON_CANCELLED", message_id=message_id, headers=decoded(headers), reason=reason)
    return True


def rearm(message_id: uuid.UUID, *, retries: int | None = None) -> bool:
    """Replay a dead message: the same row as a new generation, with all its attempts again. False if not dead.

    `retries`: how many this replay may have, whatever its task says.

    Of a group it becomes the head again by the order of enqueueing, once nothing else of the group is active.
    """
    row = one(
        f"""
        WITH again AS (
            UPDATE outbox_outboxmessage
            SET status = CASE WHEN ordering_key = '' THEN 'pending' ELSE 'blocked' END, generation = generation + 1,
                attempts = 0, deliveries = 0, replays = replays + 1, done_at = NULL,
                headers = (headers - %(name)s::text) || %(given)s::jsonb,
                deliver_at = clock_timestamp(), {_RESET}
            WHERE message_id = %(id)s AND status = 'dead'
            RETURNING id
        ), woken AS ({WAKE})
        SELECT id, (SELECT count(*) FROM woken) FROM again
        """,
        id=message_id, name=RETRIES_HEADER, given=json.dumps({} if retries is None else {RETRIES_HEADER: retries}),
    )  # fmt: skip
    return row is not None


def _promote_next(ordering_key: str) -> None:
    """Make the next message of the group its head, unless the group has one or a dead head holds it.

    Under concurrency the partial unique index decides; the relay's own pass heals what this one could not see.
    """
    one(
        f"""
        WITH next AS (
            UPDATE outbox_outboxmessage SET status = {_DUE}, deliver_at = greatest(deliver_at, clock_timestamp())
            WHERE status = 'blocked' AND id = (
                SELECT id FROM outbox_outboxmessage b
                WHERE b.status = 'blocked' AND b.ordering_key >= %(key)s AND b.ordering_key <= %(key)s
                ORDER BY b.ordering_key, id LIMIT 1
            ) AND NOT EXISTS (
                SELECT 1 FROM outbox_outboxmessage a
                WHERE a.ordering_key = %(key)s AND (a.status IN ('scheduled', 'pending', 'published')
                      OR (a.status = 'dead' AND NOT a.passes_over_dead))
            )
            RETURNING id
        ), woken AS ({WAKE})
        SELECT id, (SELECT count(*) FROM woken) FROM next
        """,
        key=ordering_key,
    )


def _headers(message_id: uuid.UUID) -> Any:
    row = one("SELECT headers FROM outbox_outboxmessage WHERE message_id = %(id)s", id=message_id)
    return decoded(row[0]) if row else {}


def _hook(setting: str, **kwargs: Any) -> None:
    path = getattr(settings, setting, None)
    if path:
        import_string(path)(**kwargs)
