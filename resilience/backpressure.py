"""Backpressure: refuse new work while the backlog is at its limit, where refusing is still cheap.

`Admission` guards a backlog that is counted elsewhere, for example the open rows of an outbox, before an HTTP request adds
to it. `BoundedQueue` is a list in Redis that refuses what exceeds its limit; checking and adding are one script, because
with a count and then a push a hundred producers all see 99.

This application has no queue in Redis that a producer could fill: its messages are rows, and the relay's valve
(`OUTBOX_DEPTH_LIMIT`, outbox/relay/loop.py) is what bounds the broker's queues. `BoundedQueue` is an adapter, kept for the
name of the pattern and for projects that do push to Redis themselves.

Needs `connection.py` beside it; no setting of its own. Redis down: `BoundedQueue` fails *closed*, each method raises one of
`connection.UNAVAILABLE`. The list lives there, so an item that was not confirmed was not accepted. (After a timeout it may
be there none the less: consumers must bear a repetition.) `Admission` does not use Redis; when its count raises, so does
`check`, since the same database would refuse the work.
"""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from redis import Redis

from .connection import get_redis, run_script

# KEYS: list. ARGV: limit, item. Answer: the new depth, or -1 when the list is full.
_PUSH = """
if redis.call('LLEN', KEYS[1]) >= tonumber(ARGV[1]) then return -1 end
return redis.call('RPUSH', KEYS[1], ARGV[2])
"""


class QueueFull(Exception):
    """The limit is reached, nothing was added; `retry_after` (seconds) is for the Retry-After header."""

    def __init__(self, name: str, limit: int, retry_after: float = 1.0) -> None:
        super().__init__(f"Queue full: {name} holds its limit of {limit}, backpressure activated")
        self.name = name
        self.limit = limit
        self.retry_after = retry_after


class BoundedQueue:
    """A first in, first out queue of JSON values, never more than `limit` of them, however many producers push.

    Not promised: a popped item is gone when its consumer dies, and Redis may lose the list. What must not be lost belongs
    in a table. `client` is a redis-py client (default: `get_redis()`). Raises ValueError for a limit below 1.
    """

    def __init__(self, name: str, limit: int, *, client: Redis | None = None) -> None:
        if limit < 1:
            raise ValueError(f"limit must be at least 1: {limit}")
        self.name = name
        self.limit = limit
        self.key = f"queue:{name}"
        self._client = client

    @property
    def client(self) -> Redis:
        return self._client or get_redis()

    def push(self, item: Any) -> int:
        """Append a JSON value and return the depth after it; at the limit QueueFull, and nothing added."""
        value = json.dumps(item, allow_nan=False)
        depth = int(run_script(self.client, _PUSH, [self.key], self.limit, value))
        if depth < 0:
            raise QueueFull(self.name, self.limit)
        return depth

    def pop(self) -> Any | None:
        """Remove and return the oldest item, None when there is none. It is then nowhere else."""
        raw = self.client.lpop(self.key)
        return None if raw is None else json.loads(str(raw))

    def count(self) -> int:
        """How many items wait."""
        return self.client.llen(self.key)

    def obliterate(self) -> int:
        """Delete the queue with all that waits in it; returns how many items that were."""
        with self.client.pipeline(transaction=True) as both:
            both.llen(self.key)
            both.delete(self.key)
            waiting, _ = both.execute()
        return int(waiting)


class Admission:
    """Refuse new work while a backlog is at its limit.

        admission = Admission("orders", count=open_messages, limit=50_000)
        admission.check()                       # raises QueueFull: answer 503 with Retry-After

    `count` returns the backlog. It is called at most once per `recount_every` seconds (1) in a process, because a COUNT in
    every request would itself be the overload. So the backlog may exceed the limit by what all processes accept in that
    time. `retry_after` (5 seconds) is what a refused caller is told to wait.
    """

    def __init__(
        self,
        name: str,
        *,
        count: Callable[[], int],
        limit: int,
        recount_every: float = 1.0,
        retry_after: float = 5.0,
    ) -> None:
        self.name = name
        self.limit = limit
        self.retry_after = retry_after
        self._count = count
        self._recount_every = recount_every
        self._lock = threading.Lock()
        self._counted_at = float("-inf")
        self._backlog = 0

    def check(self) -> int:
        """The backlog as last counted; raises QueueFull when it has reached the limit."""
        with self._lock:
            if time.monotonic() - self._counted_at >= self._recount_every:
                self._backlog = self._count()
                self._counted_at = time.monotonic()
            backlog = self._backlog
        if backlog >= self.limit:
            raise QueueFull(self.name, self.limit, self.retry_after)
        return backlog
