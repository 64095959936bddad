import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from resilience.ratelimit import RateLimitExceeded, TokenBucket, rate_limited
from tests.support.processes import await_


@pytest.mark.described("a token bucket for each task name (`RateLimitMiddleware`)")
def test_a_full_bucket_gives_its_burst_then_a_wait(name: str) -> None:
    bucket = TokenBucket(max_per_second=0.1, burst=3)
    assert all(bucket.acquire(name) for _ in range(3))
    refused = bucket.acquire(name)
    assert not refused
    assert 9.5 < refused.wait_seconds <= 10.0


def test_the_stated_wait_is_enough(name: str) -> None:
    bucket = TokenBucket(max_per_second=20, burst=1)
    assert bucket.acquire(name)
    refused = bucket.acquire(name)
    assert not refused
    time.sleep(refused.wait_seconds)
    assert bucket.acquire(name)


@pytest.mark.described("a token bucket for each task name (`RateLimitMiddleware`)")
def test_names_have_buckets_of_their_own(name: str) -> None:
    bucket = TokenBucket(max_per_second=0.1, burst=1)
    assert bucket.acquire(f"{name}-a")
    assert not bucket.acquire(f"{name}-a")
    assert bucket.acquire(f"{name}-b")


def test_several_tokens_are_taken_all_or_none(name: str) -> None:
    bucket = TokenBucket(max_per_second=0.01, burst=5)
    assert bucket.acquire(name, 3)
    assert not bucket.acquire(name, 3)
    assert bucket.acquire(name, 2)


def test_asking_for_more_than_the_bucket_can_hold_is_refused_at_once(name: str) -> None:
    with pytest.raises(ValueError, match="burst of 5"):
        TokenBucket(max_per_second=1, burst=5).acquire(name, 6)


@pytest.mark.parametrize(
    ("rate", "burst"), [(0, None), (math.nan, None), (math.inf, None), (1, 0.5), (1, math.nan), (1, math.inf)]
)
def test_a_rate_or_burst_that_lets_nothing_by_or_everything_is_refused(
    rate: float, burst: float | None
) -> None:
    with pytest.raises(ValueError, match="max_per_second must be > 0 and burst >= 1"):
        TokenBucket(rate, burst)


def test_threads_together_get_no_more_than_burst_and_rate_allow(name: str) -> None:
    bucket = TokenBucket(max_per_second=50, burst=10)
    start = threading.Barrier(8)

    def hammer(_: int) -> int:
        start.wait()
        until = time.monotonic() + 1.0
        taken = 0
        while time.monotonic() < until:
            taken += bool(bucket.acquire(name))
        return taken

    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        taken = sum(pool.map(hammer, range(8)))
    elapsed = time.monotonic() - began
    assert taken <= 10 + 50 * elapsed + 1
    assert taken >= 45


def test_a_clock_two_hours_ahead_gives_no_tokens(name: str, mocker) -> None:
    """The clock of a worker."""
    bucket = TokenBucket(max_per_second=0.01, burst=1)
    assert bucket.acquire(name)
    ahead = time.time() + 7200
    mocker.patch("time.time", return_value=ahead)
    assert not bucket.acquire(name)


def test_a_redis_clock_that_jumps_back_does_not_starve_the_bucket(name: str, client) -> None:
    bucket = TokenBucket(max_per_second=100, burst=1)
    an_hour_ahead = (time.time() + 3600) * 1000
    client.hset(f"ratelimit:{name}", mapping={"tokens": "0", "at": str(an_hour_ahead)})
    assert not bucket.acquire(name)
    await_(lambda: bucket.acquire(name), "a token comes back")


def test_a_long_pause_fills_the_bucket_to_its_burst_and_not_beyond(name: str, client) -> None:
    an_hour_ago = (time.time() - 3600) * 1000
    client.hset(f"ratelimit:{name}", mapping={"tokens": "0", "at": str(an_hour_ago)})
    bucket = TokenBucket(max_per_second=0.1, burst=3)
    assert [bool(bucket.acquire(name)) for _ in range(4)] == [True, True, True, False]


def test_an_idle_name_costs_no_memory(name: str, client) -> None:
    TokenBucket(max_per_second=10, burst=10).acquire(name)
    assert 0 < client.pttl(f"ratelimit:{name}") <= 2000


@pytest.mark.promise("P6", "Redis is down while a rate is asked for", "orders are accepted without a limit")
def test_without_redis_work_goes_on_by_default(name: str, absent_redis, frozen_redis) -> None:
    assert TokenBucket(10, client=absent_redis).acquire(name)
    assert TokenBucket(10, client=frozen_redis).acquire(name)


def test_without_redis_a_limiter_that_must_hold_refuses_and_names_a_wait(name: str, absent_redis) -> None:
    refused = TokenBucket(10, fail_open=False, client=absent_redis).acquire(name)
    assert not refused
    assert refused.wait_seconds > 0


def test_a_limited_function_is_not_called_above_its_rate(
    name: str,
) -> None:
    """The error says when to try again."""
    calls: list[int] = []

    @rate_limited(name, per_second=0.1, burst=2)
    def call(number: int) -> int:
        calls.append(number)
        return number

    assert [call(1), call(number=2)] == [1, 2]
    with pytest.raises(RateLimitExceeded) as refused:
        call(3)
    assert calls == [1, 2]
    assert 9.5 < refused.value.retry_after <= 10.0
