"""Claiming a message for one run, and why a claim is refused.

A claim comes before the body, so that a second copy finds the message taken. It is a lease with a token, or, for a
transactional task, the row lock of the transaction that runs the body. A copy whose claim is refused is acknowledged and
counted.
"""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from outbox import payload
from outbox.broker.envelope import REQUEST_ID_HEADER, RETRIES_HEADER, TRACEPARENT_HEADER
from outbox.prepared import Prepared, one
from outbox.sql import LIVE, PUBLISHED, TABLE_BYTES
from outbox.status import Status

#: Why a copy is not run: it was overtaken (done, cancelled, or of an older generation), another run holds the row, the
#: row is gone (pruned, or lost with a restore), too many runs of it never ended, or it names another task than the row.
REASONS = ("duplicate", "leased", "missing", "poison", "mismatch")

#: A copy that names another task than the row was not sent by the outbox, whatever id and generation it carries.
_NAMED = "task = coalesce(%(task)s, task)"
#: What a claim returns to its run.
_CLAIMED = (
    "attempts, correlation_id, ordering_key, replays,"
    f" headers ->> '{RETRIES_HEADER}', headers ->> '{REQUEST_ID_HEADER}', headers ->> '{TRACEPARENT_HEADER}',"
    " args::text, kwargs::text"
)

# What every message costs, so these are prepared; those of `refusal` are for messages in trouble.
_CLAIM = Prepared(
    f"""
    UPDATE outbox_outboxmessage
    SET status = {PUBLISHED}, published_at = coalesce(published_at, clock_timestamp()),
        started_at = clock_timestamp(), lease_token = %(token)s, worker = %(worker)s,
        lease_until = clock_timestamp() + %(lease)s * interval '1 second', deliveries = deliveries + 1
    WHERE id = (
        SELECT id FROM outbox_outboxmessage WHERE {LIVE} AND {_NAMED} AND deliveries < %(max)s
          AND (lease_token IS NULL OR lease_until < clock_timestamp())
        FOR UPDATE SKIP LOCKED
    )
    RETURNING {_CLAIMED}, {TABLE_BYTES}
    """,
    id="uuid", generation="int", task="text", token="uuid", worker="text", lease="float8", max="int",
)  # fmt: skip
_LOCK = Prepared(
    f"""
    SELECT {_CLAIMED},
           set_config('idle_in_transaction_session_timeout', %(frozen)s, true), {TABLE_BYTES}
    FROM outbox_outboxmessage
    WHERE {LIVE} AND {_NAMED} AND deliveries < %(max)s AND lease_token IS NULL FOR UPDATE SKIP LOCKED
    """,
    id="uuid", generation="int", task="text", max="int", frozen="text",
)  # fmt: skip


@dataclass(frozen=True)
class Claimed:
    """A claim that was won: `token` guards every later write of this run; None for a claim that is a row lock.

    `retries`: how many its replay may have, None where the task says. `request_id`, `traceparent`: of the HTTP request that
    it comes from. `args` and `kwargs` are the row's: what the copy carries is whatever somebody wrote into the broker.
    `began`: by `time.monotonic()`.
    """

    message_id: uuid.UUID
    generation: int
    attempts: int
    correlation_id: str
    ordering_key: str
    replays: int
    retries: int | None
    request_id: str
    traceparent: str
    args: list[Any]
    kwargs: dict[str, Any]
    token: uuid.UUID | None
    began: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Refused:
    """A claim that was refused, and why: one of REASONS. `reported`: the last error of a poison message."""

    reason: str
    reported: str | None = None


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
        return _refusal(message_id, generation, max_deliveries=max_deliveries, task=task)
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

    `frozen_s`: seconds without a statement after which the database ends the transaction of a frozen holder. Deliveries
    are not counted here, where a count would be rolled back with the run; but what others counted is compared with the
    limit, too.
    """
    row = _LOCK.one(
        id=message_id,
        generation=generation,
        task=task,
        max=max_deliveries,
        frozen=f"{int(frozen_s * 1000)}",
    )
    if row is None:
        return _refusal(message_id, generation, max_deliveries=max_deliveries, task=task)
    return _claimed(message_id, generation, row[:9], None)


def _claimed(
    message_id: uuid.UUID, generation: int, row: tuple[Any, ...], token: uuid.UUID | None
) -> Claimed:
    attempts, correlation_id, ordering_key, replays, retries, request_id, traceparent, args, kwargs = row
    # A producer may have written a header of that name.
    allowed = int(retries) if retries and re.fullmatch("[0-9]{1,6}", retries) else None
    origin = request_id or "", traceparent or ""
    content = allowed, *origin, payload.decoded(args), payload.decoded(kwargs)
    return Claimed(
        message_id, generation, attempts, correlation_id, ordering_key, replays, *content, token=token
    )


def _refusal(message_id: uuid.UUID, generation: int, *, max_deliveries: int, task: str | None) -> Refused:
    row = one(
        """
        SELECT task, generation, status, deliveries, lease_until > clock_timestamp(), errors -> -1 ->> 'error'
        FROM outbox_outboxmessage WHERE message_id = %(id)s
        """,
        id=message_id,
    )
    if row is None:
        return Refused("missing")
    named, current, status, deliveries, leased, reported = row
    if task is not None and named != task:
        return Refused("mismatch")
    live = current == generation and status in (Status.PENDING, Status.PUBLISHED)
    if live and not leased and deliveries >= max_deliveries:
        return Refused("poison", reported)
    return Refused("leased" if live else "duplicate")


def count_skipped(message_id: uuid.UUID, reason: str) -> None:
    """Count a copy that does not run: for ever by its reason, and on its row where that exists and is not locked.

    SKIP LOCKED: counting must not wait for the run that holds the row.
    """
    one(
        """
        WITH counted AS (
            UPDATE outbox_outboxmessage SET duplicates = duplicates + 1 WHERE id =
                (SELECT id FROM outbox_outboxmessage WHERE message_id = %(id)s FOR UPDATE SKIP LOCKED)
        )
        INSERT INTO outbox_skipped AS s (reason, count) VALUES (%(reason)s, 1)
        ON CONFLICT (reason) DO UPDATE SET count = s.count + 1 RETURNING count
        """,
        id=message_id,
        reason=reason,
    )
