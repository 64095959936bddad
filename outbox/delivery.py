"""One delivery of one message: claim, run, settle; or the transition that the failure calls for.

The order is what matters. A claim comes before the body, so that a second copy finds it taken. The settlement
comes with the effect (a transactional task) or right after it, guarded by the claim's token. Only then does the
worker acknowledge. Whatever is killed in between leaves a row that the rescuer finds.
"""

from __future__ import annotations

import functools
import inspect
import logging
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded
from django.db import DatabaseError, InterfaceError, transaction

from outbox import claims, conf, dead_lettering, heartbeat, tracing, transitions
from outbox.claims import Claimed, Refused
from outbox.context import Run, running
from outbox.database import (
    DatabaseUnavailable,
    broke,
    described,
    leave_server,
    may_be_its_own,
    may_pass,
    patiently,
    soft_limit_in,
)
from outbox.errors import ClaimLost, Defer, PoisonMessage, VersionSkew
from outbox.report import DONE, Attempt
from outbox.retry_policy import RetryPolicy

log = logging.getLogger(__name__)

#: A lease outlives the hard time limit by this much: the parent needs a moment to kill the child and say so.
LEASE_MARGIN_S = 15.0
#: Wait, in seconds, before what was not run, or gave itself back, is run again.
AGAIN_S = 1.0
#: The claim was lost: nothing is to be done but to acknowledge this copy.
SKIPPED = object()


class Deliverable(Protocol):
    """What a delivery needs of a task; `outbox.task.OutboxTask` has it."""

    name: str
    transactional: ClassVar[bool]
    last_write_settles: ClassVar[bool]
    max_deliveries: ClassVar[int]
    MaxRetriesExceededError: Any

    @property
    def request(self) -> Any: ...
    @property
    def run(self) -> Callable[..., Any]: ...
    def run_body(self, *args: Any, **kwargs: Any) -> Any: ...
    def lease_s(self) -> float: ...
    def retry_limit(self) -> int | None: ...
    def retry_policy(self) -> RetryPolicy: ...


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
        return _failed(task, claimed, error)
    if isinstance(claimed, Refused):
        return _skip(task, message_id, generation, claimed)
    assert claimed is not None
    if ended is not None:
        return _failed(task, claimed, ended)
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
        return _failed(task, claimed, error)
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


def _failed(task: Deliverable, claimed: Claimed, error: Exception) -> Any:
    """Record the failure. Returns for what the journal will run again; raises for what is dead."""
    attempt = Attempt.of(claimed, task.name, limit=task.retry_limit())

    def say(outcome: str, why: str = "", again_s: float | None = None, level: int = logging.WARNING) -> None:
        attempt.ended(outcome, error=why or text, again_s=again_s, level=level)

    if isinstance(error, ClaimLost):
        say("overtaken", "the claim was lost to another run; not settled")
        return SKIPPED
    if isinstance(error, DatabaseUnavailable):
        # Whether it is settled is not known. The worker's parent, or the rescuer, sees to it.
        say("interrupted", described(error))
        raise error
    error = soft_limit_in(error) or error
    text = described(error)
    policy = task.retry_policy()
    leave_server(error)
    if isinstance(error, Defer):
        say("deferred", error.reason, error.seconds, logging.INFO)
        return _record(
            lambda: transitions.defer(claimed, delay_s=error.seconds, reason=str(error)), Retry(str(error))
        )
    if isinstance(error, VersionSkew) and patiently(
        lambda: transitions.defer_skewed(
            claimed.message_id,
            claimed.generation,
            token=claimed.token,
            error=text,
            grace_s=conf.skew_grace_s(),
        )
    ):
        say("deferred")
        raise Retry(text)
    if isinstance(error, Retry):
        cause = error.exc
        if not policy.spent(error, claimed.attempts):
            text = described(cause) if cause is not None else str(error)
            delay_s = policy.delay_of(error, claimed.attempts)
            say("failed", again_s=delay_s)
            return _record(lambda: transitions.retry(claimed, delay_s=delay_s, error=text), error)
        error = cause or task.MaxRetriesExceededError(f"{task.name}: {claimed.attempts} retries are spent")
        text = described(error)
    if isinstance(error, Reject) and error.requeue:
        say("deferred", again_s=AGAIN_S)
        return _record(lambda: transitions.defer(claimed, delay_s=AGAIN_S, reason=text), Retry(text))
    # An error that says nothing about the work spends no attempt, whatever the task retries. One that the run may have
    # caused is retried first.
    failed = not may_pass(error) or (may_be_its_own(error) and not broke(error))
    if failed and not isinstance(error, VersionSkew) and policy.may_retry(error, claimed.attempts):
        delay_s = policy.delay_s(claimed.attempts)
        say("failed", again_s=delay_s)
        return _record(
            lambda: transitions.retry(claimed, delay_s=delay_s, error=text), Retry(text, exc=error)
        )
    if may_pass(error):
        waits_s = patiently(
            lambda: (
                transitions.interrupt(claimed, error=text, max_deliveries=task.max_deliveries)
                if may_be_its_own(error)
                else transitions.defer_unable(claimed, error=text)
            )
        )
        if waits_s is not None:
            say("interrupted", again_s=waits_s)
            raise Retry(text)
    failure = dead_lettering.Failure(text, error, "".join(traceback.format_exception(error)))
    if not patiently(lambda: dead_lettering.dead_letter_failed(claimed, failure)):
        # Another run has taken the message over, and its end is the one that counts; or its last write has settled it.
        say("overtaken")
        return SKIPPED
    say("failed for good", level=logging.ERROR)
    raise error


def _record(transition: Callable[[], bool], outcome: Retry) -> Any:
    # Retry tells Celery to acknowledge and to report a retry; it publishes nothing, the row is the retry.
    if patiently(transition):
        raise outcome
    return SKIPPED


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
