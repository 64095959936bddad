"""The Task class: Celery's own vocabulary, with the journal underneath.

Retries and delays are rows, not broker messages: no ETA ever reaches the broker, and a retry cannot be lost
with it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import datetime
from types import MappingProxyType
from typing import Any, ClassVar, cast

from celery.contrib.django.task import DjangoTask
from celery.exceptions import Ignore, Reject, Retry
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, InterfaceError, transaction

from outbox import conf, context, delivery, foreign, options
from outbox.database import keep_sqlstate
from outbox.deadline import within_hard_limit
from outbox.enqueue import queue_of
from outbox.errors import EnqueueError, is_delay
from outbox.retry_policy import RetryPolicy, seconds_until

#: The mark of a run that has begun. An object of this process: each header of a message becomes an attribute of its
#: request, and one that anybody could write would run a task past its claim.
_BEGUN = object()
#: The same, once the body runs: from here on a call of the task is a plain one.
_ENTERED = object()
#: Options of Celery's that no task may turn off; `outbox.checks` looks at what the application says for all tasks.
_PROMISED = ("acks_late", "reject_on_worker_lost", "acks_on_failure_or_timeout")
#: Where neither the task nor Celery's `task_soft_time_limit` says any: a minute before the default hard limit.
SOFT_TIME_LIMIT_S = 300


class OutboxTask(DjangoTask):
    """Base of every task. Called as a function it is a plain call; as a message it is claimed and settled.

    Options of `@shared_task`. Those of Celery that are not listed mean what they mean there (`autoretry_for`,
    `max_retries`, `time_limit`, ...); each run that fails is one attempt, so that three retries are four attempts.

    `queue`: name of the queue of its messages, where the call names none. Default: Celery's `task_default_queue`.
    `transactional`: whether claim, body and settlement are one database transaction, for a body whose effects are all in
        this database: they then exist together with the settlement, or not at all. Default: False, and the settlement
        follows the body, which therefore must bear to be run again.
    `last_write_settles`: whether the body ends with one block `outbox.settling()`, wherever that is: what it writes is then
        committed together with the settlement. Default: False. Not for a body that goes on after the block. A transactional
        task says it to settle before a last write whose lock others wait for.
    `permanent_errors`: exceptions that no retry can mend: the message becomes a dead letter at once, whatever
        `autoretry_for` says. Default: ().
    `max_deliveries`: runs that may begin without one of them ending, before the message counts as poison and becomes a
        dead letter. Default: 5.
    `retry_schedule`: seconds before the first, second, ... retry; its length is `max_retries`. Default: None, the back-off.
    `retry_backoff`: seconds, the ceiling of the delay before the first retry; it doubles with each. Default: 1 (and True
        is 1).
    `retry_backoff_max`: seconds, the highest ceiling. Default: 300.
    `retry_jitter`: whether each delay is anywhere between 0 and its ceiling, instead of the ceiling. Default: True.
    `default_retry_delay`: seconds before each retry that names no delay of its own, instead of the back-off. Default: None.
    `retry_kwargs`: Celery's other way to say `max_retries` and, in seconds, `countdown`. Default: {}. Nothing else goes in.
    `ordered`: whether its message of an event (`outbox.emit`) takes the ordering key of the event. Default: False.
    `passes_over_dead`: whether a dead message of this task lets the next one of its ordered group run. Default: False, the
        group waits until the dead letter is replayed or discarded.
    `soft_time_limit`: seconds after which the body gets SoftTimeLimitExceeded. Default: Celery's `task_soft_time_limit`,
        else 300. It is dropped where `time_limit`, the hard limit, is not above it.
    `secret_arguments`: names of arguments that are shown in no log, list or page, given by name or by position. Default: ().
    """

    abstract = True
    Request = "outbox.worker.request:Request"

    permanent_errors: ClassVar[tuple[type[BaseException], ...]] = ()
    max_deliveries: ClassVar[int] = 5
    transactional: ClassVar[bool] = False
    last_write_settles: ClassVar[bool] = False
    retry_schedule: ClassVar[tuple[float, ...] | None] = None
    ordered: ClassVar[bool] = False
    passes_over_dead: ClassVar[bool] = False
    retry_backoff: ClassVar[bool | float] = 1
    retry_backoff_max: ClassVar[int] = 300
    retry_jitter: ClassVar[bool] = True
    retry_kwargs: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    default_retry_delay: float | None = None  # type: ignore[assignment]
    soft_time_limit: int | None = None
    secret_arguments: ClassVar[tuple[str, ...]] = ()
    queue: str | None = None
    #: For the worker's Request class: a run before the message's `eta` defers it, see `outbox.foreign.run`.
    keeps_delays: ClassVar[bool] = True

    def __init__(self) -> None:
        self.max_retries = self.retry_kwargs.get("max_retries", self.max_retries)
        if self.retry_schedule is not None:
            self.max_retries = len(self.retry_schedule)
        if self.max_retries:
            self.max_retries = max(self.max_retries, conf.retry_minimum())
        # Tells Celery that `run` is wrapped already: its own automatic retry would compute the delay itself
        # and know neither schedules nor permanent errors.
        self._orig_run = self.run

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """Refuse options that would be ignored, and drop a soft limit that the hard one precedes.

        The pool starts the clock of the hard limit only when the soft one has passed. For the same reason the pool has
        no soft limit for tasks without one, see `outbox.app`: a hard limit of seconds would never be enforced.
        """
        if not getattr(app, "sends_by_outbox", False):
            raise ImproperlyConfigured(f"{cls.name}: the Celery application must be an outbox.Celery")
        if ignored := sorted(set(cls.retry_kwargs) - {"max_retries", "countdown"}):
            raise ImproperlyConfigured(f"{cls.name}: retry_kwargs takes no {', '.join(ignored)}")
        if cls.retry_schedule is not None and "max_retries" in cls.retry_kwargs:
            raise ImproperlyConfigured(f"{cls.name}: retry_schedule says how many retries there are")
        if not is_delay(cls.retry_kwargs.get("countdown", 0)) or not is_delay(cls.default_retry_delay or 0):
            raise ImproperlyConfigured(
                f"{cls.name}: a retry's delay is a number of seconds from 0 to ten years"
            )
        if cls.expires is not None:
            raise ImproperlyConfigured(
                f"{cls.name}: a message of the outbox does not expire; check in the task whether it still matters"
            )
        if off := [name for name in _PROMISED if app.conf[f"task_{name}"] and not getattr(cls, name)]:
            raise ImproperlyConfigured(
                f"{cls.name}: {', '.join(off)} must be on, else its work is lost with its worker"
            )
        if isinstance(cls.secret_arguments, str) or (
            unknown := set(cls.secret_arguments) - set(inspect.signature(cls.run).parameters)
        ):
            given = repr(cls.secret_arguments) if isinstance(cls.secret_arguments, str) else sorted(unknown)
            raise ImproperlyConfigured(f"{cls.name}: secret_arguments names none of its arguments: {given}")
        if cls.soft_time_limit is None:
            cls.soft_time_limit = SOFT_TIME_LIMIT_S
        if cls.soft_time_limit and cls.time_limit and cls.soft_time_limit >= cls.time_limit:
            cls.soft_time_limit = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.is_plain_call():
            return super().__call__(*args, **kwargs)
        request = self.request
        if request.get("outbox_begun") is _BEGUN:
            # A base class's own `__call__` passes the call on, from inside of the delivery.
            return OutboxTask.run_body(self, *args, **kwargs)
        request.outbox_begun = _BEGUN
        request.replay_retries = None
        if self._is_eager():
            return self._run_eagerly(args, kwargs)
        wire = request.get("outbox")
        try:
            with within_hard_limit(self.hard_limit_s()):
                if wire is None:
                    return foreign.run(self, args, kwargs)
                result = delivery.deliver(self, delivery.Copy.of(request))
            if result is delivery.SKIPPED:
                # Celery's exception for a message that is acknowledged and does not count as a success.
                raise Ignore(f"{self.name}: this copy is skipped")
            return result
        except (DatabaseError, InterfaceError) as error:
            # It goes to the worker's parent, which decides by it.
            keep_sqlstate(error)
            raise

    def is_plain_call(self) -> bool:
        """Whether a call now is one of a function, also in the body of a task that calls itself."""
        return bool(self.request.called_directly) or self.request.get("outbox_begun") is _ENTERED

    def _is_eager(self) -> bool:
        # What a worker receives has the delivery info of that worker; `request.is_eager` anybody could write as a header.
        return bool((self.request.delivery_info or {}).get("is_eager"))

    def _run_eagerly(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """In the caller's process, as Celery's `task_always_eager` and `apply` do it: without a message, retries at once."""
        try:
            with transaction.atomic() if self.transactional else nullcontext():
                return self.run_body(*args, **kwargs)
        except (Retry, Ignore, Reject):
            raise
        except Exception as error:
            if not self.retry_policy().may_retry(error, self.request.retries):
                raise
            raise super().retry(exc=error, countdown=0, throw=False) from error

    def run_body(self, *args: Any, **kwargs: Any) -> Any:
        """What a delivery runs once the message is claimed: the body, in the `__call__` of a base class if that has one."""
        self.request.outbox_begun = _ENTERED
        return self.run(*args, **kwargs)

    def apply_async(self, args: Any = None, kwargs: Any = None, *more: Any, **given: Any) -> Any:
        """Enqueue, see `outbox.Celery.send_task`. In eager mode run here; what is refused outside of it is refused there, too."""
        if self.app.conf.task_always_eager:
            # Else calls that fail in production would pass in tests: Celery runs the task whatever is asked for.
            named = zip(("task_id", "producer", "link", "link_error", "shadow"), more, strict=False)
            queue_of(options.read(self, {**self._get_exec_options(), **dict(named), **given}))
        return super().apply_async(args, kwargs, *more, **given)

    def delay_on_commit(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """`.delay()`: the row is written now and exists from the commit on. After it a crash would lose the call."""
        self.apply_async_on_commit(args, kwargs)

    def apply_async_on_commit(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """`.apply_async()`, see `delay_on_commit`."""
        if self.app.conf.task_always_eager:
            super().apply_async_on_commit(*args, **kwargs)
        else:
            self.apply_async(*args, **kwargs)

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
        """Run this message again later: the same row, scheduled again; nothing is published.

        With `throw=False` the body goes on to its end, and then the run is recorded as one to retry.

        Raises `exc`, or MaxRetriesExceededError, when the tries are spent or the task was called as a function.
        """
        if args is not None or kwargs is not None or options:
            raise EnqueueError(
                f"{self.name}: a retry is the same message; it cannot change arguments or options"
            )
        request = self.request
        if self._is_eager():
            return super().retry(
                exc=cast(Any, exc), throw=throw, eta=eta, countdown=countdown, max_retries=max_retries
            )
        limit = self.retry_limit(max_retries)
        if request.called_directly:
            raise exc or Retry("called as a function: there is no message to retry")
        if limit is not None and request.retries >= limit:
            raise exc or self.MaxRetriesExceededError(f"{self.name}: {limit} retries are spent")
        if eta is not None:
            countdown = seconds_until(eta, self.app.timezone)
        if countdown is None:
            countdown = self.retry_policy().delay_s(request.retries)
        if not is_delay(countdown):
            raise EnqueueError(
                f"{self.name}: countdown must be a number of seconds from 0 to ten years, not {countdown!r}"
            )
        outcome = Retry(exc=exc, when=countdown)  # type: ignore[arg-type]
        outcome.limit = limit
        run = context.current()
        # A message of an outside producer has no run, and the note would never be read.
        if throw or run is None:
            raise outcome
        run.retry = outcome
        return outcome

    def on_replace(self, sig: Any) -> Any:
        """What `replace` ends in. Refused: a message's row has one task from its beginning to its end."""
        raise EnqueueError(f"{self.name}: the outbox cannot keep `replace`: {options.REFUSED['chain']}")

    def retry_limit(self, asked: int | None = None) -> int | None:
        """How many retries the message that runs may have, None for any number.

        The operator's number where it was replayed with one, else `asked`, else the task's.
        """
        of_replay: int | None = self.request.get("replay_retries")
        if of_replay is not None:
            return of_replay
        return self.max_retries if asked is None else asked

    def retry_policy(self) -> RetryPolicy:
        """How the message that runs is retried: this task's options, with the limit of its replay."""
        return RetryPolicy(
            limit=self.retry_limit(),
            retried=tuple(getattr(self, "autoretry_for", ())),
            permanent=(*self.permanent_errors, *getattr(self, "dont_autoretry_for", ())),
            schedule=self.retry_schedule,
            fixed_s=self.retry_kwargs.get("countdown", self.default_retry_delay),
            backoff_s=float(self.retry_backoff or 1),
            backoff_max_s=self.retry_backoff_max,
            jitter=self.retry_jitter,
            scale=conf.retry_scale(),
            timezone=self.app.timezone,
        )

    def lease_s(self) -> float:
        """How long a claim holds: the hard time limit and a margin, so that no live run loses it."""
        return self.hard_limit_s() + delivery.LEASE_MARGIN_S

    def hard_limit_s(self) -> float:
        """Seconds after which the pool kills the process of a run."""
        return float(self.time_limit or conf.time_limit_s())
