"""The Redis client that the patterns share: short timeouts, no hidden retries.

Reads `settings.REDIS_URL`, and `settings.RESILIENCE_REDIS_TIMEOUT` (seconds, default 1.0).
"""

from functools import lru_cache

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, OutOfMemoryError, ReadOnlyError, TimeoutError
from redis.retry import Retry

#: What "Redis is away" looks like: unreachable, frozen, loading, a replica after a failover, or full.
#: Anything else (a wrong type, a bug in a script) is a defect, and is not swallowed by any pattern.
UNAVAILABLE = (ConnectionError, TimeoutError, ReadOnlyError, OutOfMemoryError)

#: A pattern asks Redis on the way to real work. One second is far above a healthy answer (under 1 ms) and
#: far below every lease and time limit, so that a frozen Redis slows a task down but never makes it lose
#: its claim.
DEFAULT_TIMEOUT_S = 1.0


def get_redis() -> redis.Redis:
    """The process's Redis client; safe to share between threads and across a fork.

    The first command connects, and raises one of `UNAVAILABLE` after the timeout.
    """
    return _build(settings.REDIS_URL, getattr(settings, "RESILIENCE_REDIS_TIMEOUT", DEFAULT_TIMEOUT_S))


@lru_cache(maxsize=4)
def _build(url: str, timeout_s: float) -> redis.Redis:
    return redis.Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        # Said, because redis-py retries ten times or never, depending on how its client is built. What
        # timed out may have been carried out: a retry would take two tokens or push an item twice, and
        # multiply the timeout.
        retry=Retry(NoBackoff(), 0),
    )
