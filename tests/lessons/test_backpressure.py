"""Lesson "backpressure": two producers look at a queue that has room for one item."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_mock import MockerFixture
from redis import Redis

from lab.lessons import backpressure
from resilience.backpressure import BoundedQueue, QueueFull
from resilience.connection import get_redis

NAME = "lesson-backpressure"


@pytest.fixture
def redis() -> Iterator[Redis]:
    client = get_redis()
    yield client
    BoundedQueue(NAME, 1).obliterate()


def test_wrong_two_producers_that_count_first_exceed_the_limit(redis: Redis, mocker: MockerFixture) -> None:
    count = redis.llen

    def counted_by_both(queue: str) -> int:
        mocker.stop(patched)
        depth = count(queue)
        backpressure.push(redis, queue, "the other producer's", limit=1)
        return depth

    patched = mocker.patch.object(redis, "llen", side_effect=counted_by_both)

    backpressure.push(redis, f"queue:{NAME}", "ours", limit=1)

    assert redis.llen(f"queue:{NAME}") == 2


def test_right_the_second_of_two_producers_is_refused(redis: Redis) -> None:
    BoundedQueue(NAME, 1).push("ours")

    with pytest.raises(QueueFull, match="Queue full") as refused:
        BoundedQueue(NAME, 1).push("the other producer's")

    assert refused.value.retry_after > 0
    assert BoundedQueue(NAME, 1).count() == 1
