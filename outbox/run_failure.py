"""What the failure of a run becomes: a deferral, a retry, or a dead letter. Each is one transition of the row."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Protocol

from celery.exceptions import Reject, Retry

from outbox import conf, dead_lettering, transitions
from outbox.claims import Claimed
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
from outbox.errors import ClaimLost, Defer, VersionSkew
from outbox.report import Attempt
from outbox.retry_policy import RetryPolicy

#: Wait, in seconds, before what was not run, or gave itself back, is run again.
AGAIN_S = 1.0


class Fallible(Protocol):
    """What is asked of a task whose run has failed."""

    name: str
    max_deliveries: ClassVar[int]
    MaxRetriesExceededError: Any

    def retry_limit(self) -> int | None: ...
    def retry_policy(self) -> RetryPolicy: ...


def run_failed(task: Fallible, claimed: Claimed, error: Exception) -> None:
    """Record how a run ended with this error. Raises what the worker shall report: Retry for what runs again, the error for
    what is dead. Returns where another run has the message, or its last write has settled it.
    """
    attempt = Attempt.of(claimed, task.name, limit=task.retry_limit())

    def say(outcome: str, why: str = "", again_s: float | None = None, level: int = logging.WARNING) -> None:
        attempt.ended(outcome, error=why or text, again_s=again_s, level=level)

    if isinstance(error, ClaimLost):
        say("overtaken", "the claim was lost to another run; not settled")
        return
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
        transition = partial(transitions.defer, claimed, delay_s=error.seconds, reason=str(error))
        _record(transition, Retry(str(error)))
        return
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
            _record(partial(transitions.retry, claimed, delay_s=delay_s, error=text), error)
            return
        error = cause or task.MaxRetriesExceededError(f"{task.name}: {claimed.attempts} retries are spent")
        text = described(error)
    if isinstance(error, Reject) and error.requeue:
        say("deferred", again_s=AGAIN_S)
        _record(partial(transitions.defer, claimed, delay_s=AGAIN_S, reason=text), Retry(text))
        return
    # An error that says nothing about the work spends no attempt, whatever the task retries. One that the run may have
    # caused is retried first.
    failed = not may_pass(error) or (may_be_its_own(error) and not broke(error))
    if failed and not isinstance(error, VersionSkew) and policy.may_retry(error, claimed.attempts):
        delay_s = policy.delay_s(claimed.attempts)
        say("failed", again_s=delay_s)
        transition = partial(transitions.retry, claimed, delay_s=delay_s, error=text)
        _record(transition, Retry(text, exc=error))
        return
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
        return
    attempt.ended("failed for good", error=text, is_last=True, level=logging.ERROR)
    raise error


def _record(transition: Callable[[], bool], outcome: Retry) -> None:
    # Retry tells Celery to acknowledge and to report a retry; it publishes nothing, the row is the retry.
    if patiently(transition):
        raise outcome
