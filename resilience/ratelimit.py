"""Token bucket: at most so many calls a second for one name, over all processes and machines.

One bucket per name (a task name, an API, a customer) is one hash in Redis, and taking a token is one
script, so two workers can never spend the same token. The time is Redis's own (`TIME`): a worker whose
clock is two hours ahead neither fills the bucket for everybody nor starves.

    bucket = TokenBucket(max_per_second=10)
    permit = bucket.acquire("orders.tasks.sync_to_crm")
    if not permit:
        raise Defer(permit.wait_seconds, "rate limited")      # give the slot back, do not sleep in the worker

Redis away: fails *open* by default. The limiter spares the far side, whose own 429 still stops us; failing
closed would turn the loss of a cache into the loss of all work. `fail_open=False` where exceeding the limit
costs money.
"""

import logging
import math
from dataclasses import dataclass

from redis import Redis

from .connection import UNAVAILABLE, get_redis, run_script

logger = logging.getLogger(__name__)

#: What a refused caller is told to wait while Redis is away and the bucket fails closed.
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
    defaults to one second's worth, and at least 1. Raises ValueError for a rate or burst that lets nothing
    by, or everything.
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
                "rate limit %s: Redis is away, %s: %s", name, "let by" if self.fail_open else "held", error
            )
            return Permit(self.fail_open, 0.0 if self.fail_open else UNAVAILABLE_WAIT_S)
        return Permit(bool(allowed), wait_ms / 1000)
