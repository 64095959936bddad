"""Every transition to dead, each one guarded statement together with the record at the dead-letter desk."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from outbox.claims import Claimed
from outbox.dead_letters import tell
from outbox.groups import promote_next
from outbox.prepared import decoded, one, storable
from outbox.sql import BEGUN, DEAD, ERROR, HELD, LIVE, OF_WORKER

#: Columns of a dead message that its dead letter has as they are.
_TOLD = ("task", "queue", "attempts", "worker")


@dataclass(frozen=True)
class Failure:
    """Why a message is dead: one line of text, and what the dead-letter desk can show besides."""

    error: str
    exception: BaseException | None = None
    traceback: str = ""


def dead_letter_failed(claimed: Claimed, failure: Failure) -> bool:
    """The run failed for good. False when another run has taken the message over: its end is the one that counts."""
    return _dead_letter(claimed.message_id, claimed.generation, failure, guard=HELD, token=claimed.token)


def dead_letter_poison(
    message_id: uuid.UUID, generation: int, failure: Failure, *, max_deliveries: int
) -> bool:
    """`max_deliveries` runs have begun and none has ended. False when there were fewer, or one is running now."""
    guard = "deliveries >= %(max)s AND (lease_token IS NULL OR lease_until < clock_timestamp())"
    return _dead_letter(message_id, generation, failure, guard=guard, max=max_deliveries)


def dead_letter_lost(
    message_id: uuid.UUID, generation: int, failure: Failure, *, worker: str | None, max_deliveries: int
) -> bool:
    """The run of the process `worker` was lost, and was the last of `max_deliveries`. False when there were fewer."""
    guard = f"{OF_WORKER} AND {BEGUN} >= %(max)s"
    return _dead_letter(message_id, generation, failure, guard=guard, worker=worker, max=max_deliveries)


def dead_letter_worker_failure(
    message_id: uuid.UUID, generation: int, failure: Failure, *, worker: str | None
) -> bool:
    """The worker's parent saw the run of its process `worker` fail for good, such as at the hard time limit.

    `worker`: None for a message that no process took. False when another process has claimed the message.
    """
    return _dead_letter(message_id, generation, failure, guard=OF_WORKER, worker=worker)


def dead_letter_unpublishable(
    message_id: uuid.UUID, generation: int, failure: Failure, *, publish_count: int
) -> bool:
    """A healthy broker has refused the message once too often. False when a run began, or it was published since."""
    guard = "started_at IS NULL AND publish_count = %(count)s"
    return _dead_letter(message_id, generation, failure, guard=guard, count=publish_count)


def _dead_letter(
    message_id: uuid.UUID, generation: int, failure: Failure, *, guard: str, **values: Any
) -> bool:
    """Dead, and recorded by the dead-letter desk, in one transaction; only while `guard` holds for the row."""
    with transaction.atomic():
        row = one(
            f"""
            UPDATE outbox_outboxmessage
            SET status = {DEAD}, done_at = clock_timestamp(), attempts = attempts + 1, errors = {ERROR},
                published_at = coalesce(published_at, clock_timestamp()), lease_token = NULL, lease_until = NULL
            WHERE {LIVE} AND {guard}
            RETURNING ordering_key, passes_over_dead, correlation_id, args, kwargs, headers, {", ".join(_TOLD)}
            """,
            id=message_id, generation=generation, error=storable(failure.error), **values,
        )  # fmt: skip
        if row is None:
            return False
        ordering_key, passes_over_dead, correlation_id, args, kwargs, headers, *told = row
        if ordering_key and passes_over_dead:
            promote_next(ordering_key)
        tell(
            "on_dead",
            message_id=message_id, generation=generation,
            exception=failure.exception, error=failure.error, traceback=failure.traceback,
            args=decoded(args), kwargs=decoded(kwargs), headers=decoded(headers) | {"correlation_id": correlation_id},
            **dict(zip(_TOLD, told, strict=True)),
        )  # fmt: skip
    return True
