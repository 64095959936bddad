"""Seconds before a retry: exponential with full jitter, capped, or the task's own schedule."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery import current_app

from outbox.task import OutboxTask

NAME = "tests.outbox.delayed"


@pytest.fixture(autouse=True)
def unscaled(settings: Any) -> Iterator[None]:
    settings.RETRY_SCALE = 1.0
    yield
    current_app.tasks.pop(NAME, None)


def task(**words: Any) -> OutboxTask:
    def body() -> None: ...

    made: OutboxTask = current_app.task(body, name=NAME, lazy=False, shared=False, **words)
    return made


@pytest.mark.described("retries back off, up to `retry_backoff_max`")
@pytest.mark.parametrize(
    ("retries", "limit"), [(0, 1), (1, 2), (2, 4), (3, 8), (8, 256), (9, 300), (10_000, 300)]
)
def test_the_upper_bound_doubles_up_to_the_cap(retries: int, limit: float) -> None:
    assert task(retry_jitter=False, retry_backoff_max=300).retry_policy().delay_s(retries) == limit


def test_jitter_spreads_delays_over_the_whole_range() -> None:
    jittered = task(retry_backoff_max=300)
    delays = [jittered.retry_policy().delay_s(5) for _ in range(2000)]
    assert all(0 <= delay <= 32 for delay in delays)
    assert min(delays) < 4
    assert max(delays) > 28
    assert 14 < sum(delays) / len(delays) < 18


@pytest.mark.described("jitter: what failed together does not come back together")
def test_messages_that_failed_together_do_not_come_back_together() -> None:
    jittered = task()
    assert len({jittered.retry_policy().delay_s(3) for _ in range(100)}) == 100


def test_a_schedule_gives_its_delays_in_turn() -> None:
    """Its length is the number of retries."""
    scheduled = task(retry_schedule=(60, 300, 1800), autoretry_for=(OSError,))
    assert [scheduled.retry_policy().delay_s(n) for n in range(3)] == [60.0, 300.0, 1800.0]
    assert [scheduled.retry_policy().may_retry(OSError(), n) for n in (2, 3)] == [True, False]
