"""The wrong way of docs/lessons/backpressure.md: count, and then push."""

from __future__ import annotations

from redis import Redis

from resilience.backpressure import QueueFull


def push(redis: Redis, queue: str, item: str, limit: int) -> None:
    """Between the count and the push other producers have counted as well."""
    if redis.llen(queue) >= limit:
        raise QueueFull(queue, limit)
    redis.rpush(queue, item)
