"""Lesson "rate limit": four worker processes call a service that takes ten calls a second."""

from __future__ import annotations

import uuid

from lab.lessons.rate_limit import Limiter
from resilience.ratelimit import TokenBucket

PROCESSES, PER_SECOND, CALLS = 4, 10, 20


def test_wrong_four_processes_that_count_alone_call_four_times_as_often() -> None:
    limiters = [Limiter(PER_SECOND) for _ in range(PROCESSES)]
    assert (
        sum(limiter.allows(now=1.0) for limiter in limiters for _ in range(CALLS)) == PROCESSES * PER_SECOND
    )


def test_wrong_two_seconds_meet_and_twice_as_many_are_called_at_once() -> None:
    limiter = Limiter(PER_SECOND)
    calls = [limiter.allows(now) for now in (1.999, 2.0) for _ in range(CALLS)]
    assert sum(calls) == 2 * PER_SECOND


def test_right_four_processes_share_one_bucket() -> None:
    name = f"lesson-{uuid.uuid4().hex}"
    # A bucket that fills so slowly that nothing comes back while this test runs.
    buckets = [TokenBucket(max_per_second=0.01, burst=PER_SECOND) for _ in range(PROCESSES)]

    permits = [bucket.acquire(name) for bucket in buckets for _ in range(CALLS)]

    assert sum(map(bool, permits)) == PER_SECOND
    assert all(permit.wait_seconds > 0 for permit in permits if not permit)
