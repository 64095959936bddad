"""One delivery of one message: claim, run, settle; or the transition that the failure calls for.

The order is what matters. A claim comes before the body, so that a second copy finds it taken. The settlement
comes with the effect (a transactional task) or right after it, guarded by the claim's token. Only then does the
worker acknowledge. Whatever is killed in between leaves a row that the rescuer finds.
"""

from __future__ import annotations

import functools
import inspect
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from celery.exceptions import Ignore, SoftTimeLimitExceeded
from django.db import DatabaseError, InterfaceError, transaction

from outbox import claims, dead_lettering, heartbeat, tracing, transitions
from outbox.claims import Claimed, Refused
from outbox.context import Run, running
from outbox.database import DatabaseUnavailable, broke, patiently, soft_limit_in
from outbox.errors import ClaimLost, PoisonMessage, VersionSkew
from outbox.report import DONE, Attempt
from outbox.run_failure import Fallible, run_failed

log = logging.getLogger(__name__)

#: A lease outlives the hard time limit by this much: the parent needs a moment to kill the child and say so.
LEASE_MARGIN_S = 15.0
#: The claim was lost: nothing is to be done but to acknowledge this copy.
SKIPPED = object()


class Deliverable(Fallible, Protocol):
    """What a delivery needs of a task; `outbox.task.OutboxTask` has it."""

    transactional: ClassVar[bool]
    last_write_settles: ClassVar[bool]

    @property
    def request(self) -> Any: ...
    @property
    def run(self) -> Callable[..., Any]: ...
    def run_body(self, *args: Any, **kwargs: Any) -> Any: ...
    def lease_s(self) -> float: ...


@dataclass(frozen=True)
class Copy:
    """One copy of a message, as a worker received it.

    Its arguments are not among these: those that count are the row's, since every client of the broker can write
    a copy. `again`: it was published or delivered before, so that it may have killed its process.
    """

    message_id: uuid.UUID
    generation: int
    again: bool

    @classmethod
    def of(cls, request: Any) -> Copy:
        """The copy that this request of Celery is for. Raises KeyError, TypeError or ValueError for a broken header."""
        wire = request.get("outbox")
        again = wire.get("publish", 1) != 1 or bool((request.delivery_info or {}).get("redelivered"))
        return cls(uuid.UUID(request.id), int(wire["generation"]), again)


def deliver(task: Deliverable, copy: Copy) -> Any:
    """Run one delivered copy. Returns the body's result, or SKIPPED; raises what the worker shall report."""
    message_id, generation = copy.message_id, copy.generation
    # A copy that was delivered before is claimed in a transaction of its own, which counts the delivery. The first copy
    # of a transactional task needs no claim but a row lock.
    if task.transactional and not copy.again:
        return _run_locked(task, message_id, generation)
    claimed = patiently(
        lambda: claims.claim(
            message_id,
            generation,
            lease_s=task.lease_s(),
            worker=heartbeat.identity(),
            max_deliveries=task.max_deliveries,
            task=task.name,
        )
    )
    if isinstance(claimed, Refused):
        return _skip(task, message_id, generation, claimed)
    return _run_claimed(task, claimed)


def _run_locked(task: Deliverable, message_id: uuid.UUID, generation: int) -> Any:
    """Claim, body and settlement in one transaction: the effect and `done` exist together or not at all."""

    claimed: Claimed | Refused | None = None
    ended: Exception | None = None

    def whole() -> Any:
        nonlocal claimed, ended
        claimed = ended = None
        commits = False
        try:
            with transaction.atomic():
                claimed = claims.lock(
                    message_id,
                    generation,
                    frozen_s=task.lease_s(),
                    max_deliveries=task.max_deliveries,
                    task=task.name,
                )
                if isinstance(claimed, Refused):
                    return SKIPPED
                result = _body(task, claimed)
                commits = True
            return result
        except (SoftTimeLimitExceeded, DatabaseError, InterfaceError) as error:
            # The limit came in the body: the work took too long, not the database. And a body that cannot be run now is
            # deferred, instead of being run again and again in here: its error may be about this message alone.
            ended = soft_limit_in(error) or error
            # The outcome of a COMMIT that broke is not known: the next lock finds the row done, or not.
            is_unknown = commits and broke(ended)
            if is_unknown or not isinstance(claimed, Claimed) or isinstance(error, DatabaseUnavailable):
                raise
            return None

    try:
        result = patiently(whole)
    except Exception as error:
        if not isinstance(claimed, Claimed):
            raise
        run_failed(task, claimed, error)
        return SKIPPED
    if isinstance(claimed, Refused):
        return _skip(task, message_id, generation, claimed)
    assert claimed is not None
    if ended is not None:
        run_failed(task, claimed, ended)
        return SKIPPED
    Attempt.of(claimed, task.name, limit=task.retry_limit()).ended(DONE)
    return result


def _run_claimed(task: Deliverable, claimed: Claimed) -> Any:
    try:
        if task.transactional:
            with transaction.atomic():
                result = _body(task, claimed)
        else:
            result = _body(task, claimed)
    except Exception as error:
        run_failed(task, claimed, error)
        return SKIPPED
    Attempt.of(claimed, task.name, limit=task.retry_limit()).ended(DONE)
    return result


def _body(task: Deliverable, claimed: Claimed) -> Any:
    task.request.retries = claimed.attempts
    task.request.replay_retries = claimed.retries
    run = Run(claimed.message_id, claimed.generation, claimed.attempts + 1, claimed.correlation_id)
    run.request_id, run.traceparent = claimed.request_id, claimed.traceparent
    run.transactional = task.transactional
    if task.last_write_settles:
        run.settle = functools.partial(transitions.settle, claimed)
    with running(run), tracing.attempt(task.name, claimed):
        try:
            result = task.run_body(*claimed.args, **claimed.kwargs)
        except Ignore:
            result = None
        except TypeError as error:
            if _takes(task, claimed):
                raise
            # The call itself was refused, so that nothing of the body has run.
            raise VersionSkew(f"{task.name} does not take these arguments here: {error}") from error
    if run.retry is not None:
        raise run.retry
    children = list(run.children.values())
    if run.settled is not None:
        settled = run.settled
    elif transaction.get_connection().in_atomic_block:
        settled = transitions.settle(claimed, children)
    else:
        settled = patiently(lambda: transitions.settle(claimed, children))
    if not settled:
        raise ClaimLost(f"{claimed.message_id} generation {claimed.generation}")
    return result


def _takes(task: Deliverable, claimed: Claimed) -> bool:
    """Whether this version of the task can be called with the message's arguments."""
    try:
        inspect.signature(task.run).bind(*claimed.args, **claimed.kwargs)
    except TypeError:
        return False
    return True


def _skip(task: Deliverable, message_id: uuid.UUID, generation: int, refused: Refused) -> Any:
    """Acknowledge and count a copy that is not to run; the copy that shows a poison message makes it a dead letter."""
    if refused.reason == "poison":
        error = PoisonMessage(
            f"begun {task.max_deliveries} times, and the last run ended without a report"
            f" (reported last: {refused.reported or 'nothing'})"
        )
        failure = dead_lettering.Failure(f"PoisonMessage: {error}", error)
        if patiently(
            lambda: dead_lettering.dead_letter_poison(
                message_id, generation, failure, max_deliveries=task.max_deliveries
            )
        ):
            raise error
    patiently(lambda: claims.count_skipped(message_id, refused.reason))
    log.info("%s %s: copy skipped (%s)", task.name, message_id, refused.reason)
    return SKIPPED
