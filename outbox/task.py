"""The Task class: Celery's own vocabulary, with the journal underneath.

Retries and delays are rows, not broker messages: no ETA ever reaches the broker, and a retry cannot be lost
with it.
"""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime
from typing import Any, ClassVar, NoReturn

from celery import Task
from celery.exceptions import Retry
from celery.utils.time import maybe_iso8601, maybe_make_aware
from django.conf import settings

from outbox import execution
from outbox.errors import Defer, EnqueueError
from outbox.producer import adopt, enqueue


class OutboxTask(Task):
    """Base of every task. Called as a function it is a plain call; as a message it is claimed and settled."""

    abstract = True

    #: Exceptions that no retry can mend: straight to the dead letters, whatever `autoretry_for` says.
    permanent_errors: ClassVar[tuple[type[BaseException], ...]] = ()
    #: Runs that may begin without one of them ending, before the message counts as poison.
    max_deliveries: ClassVar[int] = 5
    #: Database effects only: claim, body and settlement are one transaction.
    transactional: ClassVar[bool] = False
    #: Seconds before the first, second, … retry; it sets `max_retries`, too.
    retry_schedule: ClassVar[tuple[float, ...] | None] = None
    #: Whether this task's message of an event takes the event's ordering key.
    ordered: ClassVar[bool] = False
    #: Whether a dead head of an ordered group lets the next message pass.
    passes_over_dead: ClassVar[bool] = False
    retry_backoff: ClassVar[bool | float] = 1
    retry_backoff_max: ClassVar[int] = 300
    retry_jitter: ClassVar[bool] = True
    #: Seconds after which the body gets SoftTimeLimitExceeded, a minute before the default hard limit.
    soft_time_limit: int | None = 300
    queue: str | None = None
    #: For the worker's Request class: a run before the message's `eta` puts it off, see `_run_without_journal`.
    keeps_delays: ClassVar[bool] = True

    def __init__(self) -> None:
        if self.retry_schedule is not None:
            self.max_retries = len(self.retry_schedule)
        if self.max_retries:
            self.max_retries = max(self.max_retries, getattr(settings, "RETRY_MINIMUM", 0))
        # Tells Celery that `run` is wrapped already: its own automatic retry would compute the delay itself
        # and know neither schedules nor permanent errors.
        self._orig_run = self.run

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """Drop a soft limit that the hard one precedes.

        The pool starts the clock of the hard limit only when the soft one has rung. For the same reason the soft
        limit is an attribute here and not the setting `task_soft_time_limit`, which the pool would apply to
        every task that has none: a task's own hard limit of seconds would never be enforced.
        """
        if cls.soft_time_limit and cls.time_limit and cls.soft_time_limit >= cls.time_limit:
            cls.soft_time_limit = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        request = self.request
        wire = request.get("outbox")
        if request.called_directly or wire is None or request.get("outbox_begun"):
            if not request.called_directly and wire is None:
                return self._run_without_journal(args, kwargs)
            return super().__call__(*args, **kwargs)
        # Set once, so that a task that calls itself as a function makes a plain call.
        request.outbox_begun = True
        return execution.deliver(self, wire, args, kwargs)

    def _run_without_journal(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A message from a producer that knows no outbox. If it is to run later, or again, it becomes a row.

        Its `expires` is looked at when it arrives; a row has none.
        """
        early_s = self._seconds_until_eta()
        try:
            if early_s > 0:
                raise Defer(early_s, "its time has not come")
            return self.run(*args, **kwargs)
        except Defer as error:
            delay_s = error.seconds
        except Retry as error:
            delay_s = execution.retry_delay_s(error)
        except Exception as error:
            if not self.may_retry(error, self.request.retries):
                raise
            delay_s = self.retry_delay_s(self.request.retries)
        adopt(self, args, kwargs, delay_s=delay_s)
        raise Retry(f"again in {delay_s:g} s, as a message of the outbox")

    def _seconds_until_eta(self) -> float:
        eta: Any = self.request.eta
        eta = maybe_iso8601(eta)
        if eta is None:
            return 0.0
        return float((maybe_make_aware(eta, UTC) - datetime.now(UTC)).total_seconds())

    def apply_async(  # type: ignore[override]
        self, args: Any = None, kwargs: Any = None, task_id: str | None = None, **options: Any
    ) -> EnqueuedResult:
        """Enqueue through the outbox, in the caller's transaction. What the outbox cannot keep, it refuses."""
        eta = options.pop("eta", None)
        if eta is not None:
            moment = eta if eta.tzinfo else eta.replace(tzinfo=UTC)
            options["countdown"] = max(0.0, (moment - datetime.now(UTC)).total_seconds())
        if task_id is not None:
            options["task_id"] = task_id
        # Celery hands on what the caller left out as None.
        given = {name: value for name, value in options.items() if value is not None}
        signature = self.signature(args=args, kwargs=kwargs, **given)
        return EnqueuedResult(enqueue(signature))

    def retry(
        self,
        args: Any = None,
        kwargs: Any = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        """Run this message again later: the row is re-armed, nothing is published.

        Raises `exc`, or MaxRetriesExceededError, when the tries are spent or the task was called as a function.
        """
        if args is not None or kwargs is not None or options:
            raise EnqueueError(
                f"{self.name}: a retry is the same message; it cannot change arguments or options"
            )
        request = self.request
        limit = self.max_retries if max_retries is None else max_retries
        if request.called_directly:
            raise exc or Retry("called as a function: there is no message to retry")
        if limit is not None and request.retries >= limit:
            raise exc or self.MaxRetriesExceededError(f"{self.name}: {limit} retries are spent")
        if eta is not None:
            countdown = max(0.0, (eta - datetime.now(UTC)).total_seconds())
        outcome = Retry(exc=exc, when=self.retry_delay_s(request.retries) if countdown is None else countdown)  # type: ignore[arg-type]
        if throw:
            raise outcome
        return outcome

    def may_retry(self, error: BaseException, retries: int) -> bool:
        """Whether this failure, after `retries` retries, is to be run again."""
        never = (*self.permanent_errors, *getattr(self, "dont_autoretry_for", ()))
        if isinstance(error, never) or not isinstance(error, tuple(getattr(self, "autoretry_for", ()))):
            return False
        return self.max_retries is None or retries < self.max_retries

    def retry_delay_s(self, retries: int) -> float:
        """Seconds before retry number `retries` + 1: the schedule, else exponential with full jitter, capped.

        Full jitter (Brooker, AWS Architecture Blog): anywhere between 0 and the ceiling, so that many messages
        that failed together do not come back together.
        """
        scale = float(getattr(settings, "RETRY_SCALE", 1.0))
        if self.retry_schedule:
            return self.retry_schedule[min(retries, len(self.retry_schedule) - 1)] * scale
        ceiling = min(self.retry_backoff_max, float(self.retry_backoff or 1) * 2 ** min(retries, 32))
        return (random.uniform(0, ceiling) if self.retry_jitter else ceiling) * scale

    def lease_s(self) -> float:
        """How long a claim holds: the hard time limit and a margin, so that no live run loses it."""
        limit = self.time_limit or settings.CELERY_TASK_TIME_LIMIT
        return float(limit) + execution.LEASE_MARGIN_S


class EnqueuedResult:
    """What `.delay()` returns: the id. There is no result to wait for; the state is in the outbox."""

    def __init__(self, message_id: uuid.UUID) -> None:
        self.id = self.task_id = str(message_id)

    def __str__(self) -> str:
        return self.id

    def get(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(
            "results are not kept: read the state that the task wrote, or the outbox row"
        )
