"""Whether and when a failed run is run again: what a task says of it, as functions of nothing but their arguments."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any

from celery.exceptions import Retry

from outbox.errors import is_delay


@dataclass(frozen=True)
class RetryPolicy:
    """How often, after which errors and after how many seconds the runs of one message are retried.

    `limit`: retries at most, None for any number. `retried`: the errors that are, but for `permanent` ones. `schedule`:
    seconds before the first, second, ... retry; else `fixed_s` before each; else exponential back-off from `backoff_s`
    to `backoff_max_s`, with full jitter where `jitter`. `scale`: a factor on all of these. `timezone`: of a moment
    without one.

    Full jitter (Brooker, AWS Architecture Blog): anywhere between 0 and the ceiling, so that many messages that failed
    together do not come back together.
    """

    limit: int | None
    retried: tuple[type[BaseException], ...] = ()
    permanent: tuple[type[BaseException], ...] = ()
    schedule: tuple[float, ...] | None = None
    fixed_s: float | None = None
    backoff_s: float = 1.0
    backoff_max_s: float = 300.0
    jitter: bool = True
    scale: float = 1.0
    timezone: tzinfo = UTC

    def may_retry(self, error: BaseException, retries: int) -> bool:
        """Whether this failure, after `retries` retries, is to be run again."""
        if isinstance(error, self.permanent) or not isinstance(error, self.retried):
            return False
        return self.limit is None or retries < self.limit

    def delay_s(self, retries: int) -> float:
        """Seconds before retry number `retries` + 1. A schedule that is too short goes on with its last delay."""
        if self.schedule:
            return self.schedule[min(retries, len(self.schedule) - 1)] * self.scale
        if self.fixed_s is not None:
            return float(self.fixed_s) * self.scale
        ceiling = min(self.backoff_max_s, self.backoff_s * 2 ** min(retries, 32))
        return (random.uniform(0, ceiling) if self.jitter else ceiling) * self.scale

    def spent(self, asked: Retry, retries: int) -> bool:
        """Whether `retries` are all that this `retry()` may have: of its own limit, or else of the task's."""
        limit: int | None = getattr(asked, "limit", self.limit)
        return limit is not None and retries >= limit

    def delay_of(self, asked: Retry, retries: int) -> float:
        """Seconds that this `retry()` is to wait; those of the task when it was raised without a delay."""
        when: Any = asked.when
        if isinstance(when, datetime):
            return seconds_until(when, self.timezone)
        return float(when) if is_delay(when) else self.delay_s(retries)


def seconds_until(moment: datetime, timezone: tzinfo) -> float:
    """Seconds from now to `moment`, 0 if it has passed. `timezone`: of a moment without one, as Celery reads it."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
