"""Distributed lock, as a lease on a name: of all workers, one at a time runs the body for `kind` and `id`.

    with task_lock("user_id", customer_id, ttl=60) as lock:        # Redis key lock:user_id:<customer_id>
        bill(customer_id, fence=lock.fence)

If it is held, `LockHeld` says when to try again: release the job to the queue (`raise
Defer(error.retry_after)`), do not wait in the worker. Needs `connection.py` beside it; no setting of its own.

Why money needs a database constraint besides. A lock that survives its holder's death must expire, and a
holder that is frozen past the expiry (SIGSTOP, a VM pause, a long collection) goes on as if it
still held it; Redis also forgets on FLUSHALL and may lose the newest writes in a failover. In each case
two bodies run. So the lock only saves wasted work; what makes the second effect impossible is the unique
constraint on (customer, period), or an UPDATE that says `WHERE fence < lock.fence`: the fencing token grows
with each acquisition, hence a late writer carries the smaller one and changes no row. (Kleppmann, "How to
do distributed locking", 2016.)

Redis down: fails *closed*. Whether the lock is held cannot be known, so it is not given: `LockUnavailable`, which is a
`LockHeld`.
"""

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis

from .connection import UNAVAILABLE, get_redis, milliseconds, run_script

logger = logging.getLogger(__name__)

#: The ttl is sized for the slowest body, so most locks are free long before it ends: ask again after at
#: most this.
RETRY_AFTER_CAP_S = 5.0
#: A fence counter outlives the longest lease by far; it is seeded from the clock, so it may be forgotten
#: afterwards.
_FENCE_TTL_MS = 24 * 3600 * 1000

# KEYS: lock, fence. ARGV: token, ttl in ms, fence ttl in ms. Answer: {1, fence} or {0, ms until it expires}.
# A new counter begins at Redis's clock in microseconds instead of 1. It cannot have been incremented once a
# microsecond, so a counter that was flushed or has expired goes on above every token it ever gave out.
_ACQUIRE = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
    if redis.call('EXISTS', KEYS[2]) == 0 then
        local time = redis.call('TIME')
        redis.call('SET', KEYS[2], string.format('%.0f', time[1] * 1000000 + time[2]))
    end
    local fence = redis.call('INCR', KEYS[2])
    redis.call('PEXPIRE', KEYS[2], ARGV[3])
    return {1, fence}
end
return {0, redis.call('PTTL', KEYS[1])}
"""

# Compare and delete in one step: between a GET and a DEL the lease may run out and be another's.
_RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
_EXTEND = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""


class LockHeld(Exception):
    """Another worker holds the lock; `retry_after` (seconds) is when asking again makes sense."""

    def __init__(self, key: str, retry_after: float) -> None:
        super().__init__(f"{key} is held, retry in {retry_after:.1f} s")
        self.key = key
        self.retry_after = retry_after


class LockUnavailable(LockHeld):
    """Redis did not answer, so whether the lock is held is not known, and it is not given."""


class LockLost(Exception):
    """The lease ran out before it was extended: another may be inside. Stop, and write nothing more."""


class TaskLock:
    """A lease that is held: `fence` goes into every write, `extend` prolongs it."""

    def __init__(self, client: Redis, key: str, token: str, fence: int, ttl: float) -> None:
        self._client = client
        self._token = token
        self.key = key
        self.fence = fence
        self.ttl = ttl

    def extend(self, ttl: float | None = None) -> None:
        """Let the lease end `ttl` seconds from now (default: as long as at first).

        Raises LockLost when it has already run out, and one of `UNAVAILABLE` when Redis is down; the lease
        then ends when it would have ended.
        """
        ttl = self.ttl if ttl is None else ttl
        if not run_script(self._client, _EXTEND, [self.key], self._token, milliseconds(ttl)):
            raise LockLost(f"{self.key} ran out before it was extended")

    def release(self) -> bool:
        """Give the lease back; false when it was no longer ours, and then it is left to its new holder."""
        return bool(run_script(self._client, _RELEASE, [self.key], self._token))


@contextmanager
def task_lock(kind: str, id: object, ttl: float = 60.0, *, client: Redis | None = None) -> Iterator[TaskLock]:
    """Hold `lock:<kind>:<id>` for the body, for at most `ttl` seconds (60) unless extended. Does not wait.

    Raises LockHeld (with `retry_after`) when another holds it, LockUnavailable when Redis is down, ValueError for a ttl
    that is not positive. Choose a ttl above the body's time limit: a body that outlives it runs beside the next holder.
    """
    lock = _acquire(client or get_redis(), kind, id, ttl)
    try:
        yield lock
    finally:
        # Never raises: the body's outcome stands, and a lock that could not be deleted ends by itself.
        try:
            if not lock.release():
                logger.warning("%s ran out while its body still ran: it may have run twice", lock.key)
        except UNAVAILABLE as error:
            logger.warning("%s was not released, it ends within %g s: %s", lock.key, lock.ttl, error)


def _acquire(client: Redis, kind: str, id: object, ttl: float) -> TaskLock:
    key = f"lock:{kind}:{id}"
    token = secrets.token_hex(16)
    try:
        won, answer = run_script(
            client, _ACQUIRE, [key, f"fence:{kind}:{id}"], token, milliseconds(ttl), _FENCE_TTL_MS
        )
    except UNAVAILABLE as error:
        raise LockUnavailable(key, RETRY_AFTER_CAP_S) from error
    if not won:
        raise LockHeld(key, min(RETRY_AFTER_CAP_S, max(0.0, answer / 1000)))
    return TaskLock(client, key, token, answer, ttl)
