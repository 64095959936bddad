"""Lesson "lock and fencing": the first holder is frozen past its lease, and goes on."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack

import pytest
from redis import Redis

from lab.lessons import lock_and_fencing
from resilience.connection import get_redis
from resilience.locks import LockHeld, TaskLock, task_lock

TTL_S = 30


@pytest.fixture
def redis() -> Redis:
    client = get_redis()
    client.delete("lock:lesson:1")
    return client


def wrong(redis: Redis) -> AbstractContextManager[None]:
    return lock_and_fencing.lock(redis, "lock:lesson:1", TTL_S)


def right() -> AbstractContextManager[TaskLock]:
    return task_lock("lesson", 1, ttl=TTL_S)


def let_the_lease_run_out(redis: Redis) -> None:
    assert redis.pexpire("lock:lesson:1", 0)


def test_wrong_a_late_holder_opens_the_lock_of_the_next_one(redis: Redis) -> None:
    with ExitStack() as second:
        with wrong(redis):
            let_the_lease_run_out(redis)
            second.enter_context(wrong(redis))
        with wrong(redis):
            """A third one is inside, beside the second."""


def test_right_a_late_holder_leaves_the_lock_to_the_next_one(redis: Redis) -> None:
    with ExitStack() as second:
        with right() as first:
            let_the_lease_run_out(redis)
            lock = second.enter_context(right())
        with pytest.raises(LockHeld) as refused, right():
            pass
        assert 0 < refused.value.retry_after <= 5
        assert lock.fence > first.fence
