"""Token bucket: at most so many calls a second for one name, over all processes and machines.

One bucket per name (a task name, an API, a customer) is one hash in Redis, and taking a token is one
script, so two workers can never spend the same token. The time is Redis's own (`TIME`): a worker whose
clock is two hours ahead neither fills the bucket for everybody nor starves.

    @rate_limited("crm", per_second=10)                       # RateLimitExceeded instead of a call, with `retry_after`
    def send_to_crm(record): ...

    permit = TokenBucket(max_per_second=10).acquire("orders-api-key-7")       # or by hand
    if not permit: ...                                        # after permit.wait_seconds

In a task the refusal becomes a deferral: `raise Defer(error.retry_after)` gives the worker back and spends no attempt;
sleeping would block it. Celery's own `rate_limit` counts in each worker by itself, and this over all of them.

Needs `connection.py` beside it; no setting of its own. Source: the token bucket of traffic shaping (Turner, 1986).

Redis down: fails *open* by default. The limiter spares the far side, whose own 429 still stops us; failing
closed would turn the loss of a cache into the loss of all work. `fail_open=False` where exceeding the limit
costs money.
"""

import functools
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from redis import Redis

from .connection import UNAVAILABLE, get_redis, run_script

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

#: What a refused caller is told to wait while Redis is down and the bucket fails closed.
UNAVAILABLE_WAIT_S = 1.0

# KEYS: bucket. ARGV: tokens per second, burst, tokens wanted. Answer: {allowed, milliseconds to wait}. A
# clock that goes backwards gives no tokens, and `at` follows it back, so that the bucket does not stay
# empty until the old time is reached again. The bucket expires once it would be full: an idle name costs
# nothing.
_ACQUIRE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local rate, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local state = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens, at = tonumber(state[1]) or burst, tonumber(state[2]) or now
tokens = math.min(burst, tokens + math.max(0, now - at) * rate / 1000)
local allowed, wait = 0, 0
if tokens >= wanted then
    allowed, tokens = 1, tokens - wanted
else
    wait = math.ceil((wanted - tokens) / rate * 1000)
end
redis.call('HSET', KEYS[1], 'tokens', string.format('%.6f', tokens), 'at', string.format('%.3f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil(burst / rate * 1000) + 1000)
return {allowed, wait}
"""


class RateLimitExceeded(Exception):
    """The bucket is empty and nothing was called; a token is there after `retry_after` seconds."""

    def __init__(self, name: str, retry_after: float) -> None:
        super().__init__(f"rate limit of {name} reached, retry in {retry_after:.1f} s")
        self.name = name
        self.retry_after = retry_after


@dataclass(frozen=True)
class Permit:
    """The bucket's answer: true when allowed; else a retry cannot succeed before `wait_seconds`."""

    allowed: bool
    wait_seconds: float = 0.0

    def __bool__(self) -> bool:
        return self.allowed


class TokenBucket:
    """A limit of `max_per_second` on average and `burst` at once, counted separately for each name.

    In any window of t seconds at most burst + t * max_per_second tokens are given out for one name. `burst`
    defaults to one second's worth, and at least 1. `fail_open` (True) says whether work goes on while Redis is down;
    `client` is a redis-py client (default: `get_redis()`). Raises ValueError for a rate or burst that lets nothing by, or
    everything.
    """

    def __init__(
        self,
        max_per_second: float,
        burst: float | None = None,
        *,
        fail_open: bool = True,
        client: Redis | None = None,
    ) -> None:
        self.max_per_second = float(max_per_second)
        self.burst = float(max(1.0, max_per_second) if burst is None else burst)
        if not (0 < self.max_per_second < math.inf and 1 <= self.burst < math.inf):
            raise ValueError(
                f"max_per_second must be > 0 and burst >= 1, and both finite: {max_per_second}, {burst}"
            )
        self.fail_open = fail_open
        self._client = client

    def acquire(self, name: str, n: int = 1) -> Permit:
        """Take `n` tokens of the bucket `name`, all or none, without waiting.

        Raises ValueError when n is more than the bucket can ever hold: such a caller would wait for ever.
        """
        if not 0 < n <= self.burst:
            raise ValueError(f"n must be between 1 and the burst of {self.burst:g}: {n}")
        client = self._client or get_redis()
        try:
            allowed, wait_ms = run_script(
                client, _ACQUIRE, [f"ratelimit:{name}"], self.max_per_second, self.burst, n
            )
        except UNAVAILABLE as error:
            logger.warning(
                "rate limit %s: Redis is down, %s: %s", name, "let by" if self.fail_open else "held", error
            )
            return Permit(self.fail_open, 0.0 if self.fail_open else UNAVAILABLE_WAIT_S)
        return Permit(bool(allowed), wait_ms / 1000)


def rate_limited(
    name: str, *, per_second: float, burst: float | None = None, fail_open: bool = True
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator: each call takes a token of the bucket `name`; without one it raises RateLimitExceeded at once.

    The options are those of `TokenBucket`. Put it outside of a circuit breaker: a call that was never made says nothing
    about the far side.
    """
    bucket = TokenBucket(per_second, burst, fail_open=fail_open)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def limited(*args: P.args, **kwargs: P.kwargs) -> R:
            permit = bucket.acquire(name)
            if not permit:
                raise RateLimitExceeded(name, permit.wait_seconds)
            return function(*args, **kwargs)

        return limited

    return decorate
