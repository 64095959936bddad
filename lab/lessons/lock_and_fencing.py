"""The wrong way of docs/lessons/lock-and-fencing.md: a lock that is deleted by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis


@contextmanager
def lock(redis: Redis, name: str, ttl_s: float) -> Iterator[None]:
    """After the ttl the lock is another holder's, and this one deletes it none the less."""
    if not redis.set(name, "held", nx=True, px=int(ttl_s * 1000)):
        raise BlockingIOError(f"{name} is held")
    try:
        yield
    finally:
        redis.delete(name)
