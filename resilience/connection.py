"""The Redis client that the patterns of this folder share: short timeouts, no hidden retries, one tuple of outage errors.

Every setting has a default. Each is a Django setting where Django is installed and configured, else an environment variable:

| name | default | what |
|---|---|---|
| `REDIS_URL` | `redis://127.0.0.1:6379/0` | the server; or sentinels, as `sentinel.py` reads them |
| `RESILIENCE_REDIS_TIMEOUT` | 1.0 | seconds for connecting and for each answer |
| `RESILIENCE_REDIS_MASTER` | `mymaster` | with sentinels: the master's name there |
| `RESILIENCE_SENTINEL_KWARGS` | {} | the same: user, password and TLS of their own connections; only in Django |
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, OutOfMemoryError, ReadOnlyError, ResponseError, TimeoutError
from redis.retry import Retry

#: The errors of a Redis that is down for its callers: unreachable, frozen, loading, a replica after a failover, full, or
#: unable to save. Anything else (a wrong type, a bug in a script) is a defect, and no pattern swallows it.
UNAVAILABLE = (ConnectionError, TimeoutError, ReadOnlyError, OutOfMemoryError)

#: A refusal that redis-py does not recognise: it knows a code at the start of an answer, and up to Redis 6.2 a script's
#: answer is "ERR Error running script (…): -OOM command not allowed …". MISCONF (it takes no writes, since it cannot
#: save them) redis-py does not know at all; to a caller it is a Redis that cannot be written to.
_REFUSAL = re.compile(r"(?:^|-)(OOM|READONLY|MISCONF)\b")
_REFUSALS = {"OOM": OutOfMemoryError, "READONLY": ReadOnlyError, "MISCONF": ReadOnlyError}

DEFAULT_URL = "redis://127.0.0.1:6379/0"
#: A pattern asks Redis on the way to real work. One second is far above a healthy answer (under 1 ms) and
#: far below every lease and time limit, so that a frozen Redis slows a task down but never makes it lose
#: its claim.
DEFAULT_TIMEOUT_S = 1.0
DEFAULT_MASTER = "mymaster"

#: A century: what is to be kept longer is a mistake, and Redis refuses times that do not fit its clock.
MAX_TTL_S = 100 * 365 * 86_400.0


def setting(name: str, default: Any) -> Any:
    """The Django setting `name`, else the environment variable of that name, else `default`."""
    try:
        from django.conf import settings
        from django.core.exceptions import ImproperlyConfigured
    except ImportError:
        return os.environ.get(name, default)
    try:
        return getattr(settings, name, default)
    except ImproperlyConfigured:  # Installed, and not used by this process.
        return os.environ.get(name, default)


def get_redis() -> redis.Redis:
    """The process's Redis client; safe to share between threads and across a fork.

    The first command connects, and raises one of `UNAVAILABLE` after the timeout.
    """
    return _build(
        setting("REDIS_URL", DEFAULT_URL),
        float(setting("RESILIENCE_REDIS_TIMEOUT", DEFAULT_TIMEOUT_S)),
        setting("RESILIENCE_REDIS_MASTER", DEFAULT_MASTER),
    )


def run_script(client: redis.Redis, script: str, keys: list[str], *arguments: Any) -> Any:
    """Run a Lua script, and return its answer; a Redis that refuses to write raises one of `UNAVAILABLE`."""
    with refusals_named():
        return client.eval(script, len(keys), *keys, *arguments)


def milliseconds(ttl: float) -> int:
    """A time to live as Redis takes it. Raises ValueError when it is not above 0, or longer than MAX_TTL_S."""
    if not 0 < ttl <= MAX_TTL_S:
        raise ValueError(f"ttl must be > 0 and at most {MAX_TTL_S:.0f} seconds: {ttl}")
    return max(1, round(ttl * 1000))


@contextmanager
def refusals_named() -> Iterator[None]:
    """Raise a refusal of the whole server as one of `UNAVAILABLE`, also where redis-py does not recognise it."""
    try:
        yield
    except ResponseError as error:
        refusal = _REFUSAL.search(str(error))
        if refusal is None or isinstance(error, UNAVAILABLE):
            raise
        raise _REFUSALS[refusal[1]](str(error)) from error


@lru_cache(maxsize=4)
def _build(url: str, timeout_s: float, master_name: str) -> redis.Redis:
    options: dict[str, Any] = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    make_pool: Any = redis.ConnectionPool
    if url.startswith("sentinel:"):
        from .sentinel import SentinelPool

        asked = setting("RESILIENCE_SENTINEL_KWARGS", {})
        make_pool = SentinelPool
        # None: redis-py would ask a sentinel that is down eleven times before it asks the next one.
        kwargs = {**options, "retry": None, **asked}
        options |= {"master_name": master_name, "sentinel_kwargs": kwargs, "ssl": bool(asked.get("ssl"))}
    return redis.Redis(
        connection_pool=make_pool.from_url(
            url,
            decode_responses=True,
            # Set here, because redis-py retries ten times or never, depending on how its client is built. What timed
            # out may have been carried out: a retry would take two tokens or push an item twice, and multiply the
            # timeout.
            retry=Retry(NoBackoff(), 0),
            **options,
        )
    )
