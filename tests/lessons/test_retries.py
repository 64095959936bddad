"""Lesson "retries and back-off": a thousand messages fail together, for the sixth time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from lab.lessons import retries
from outbox.retry_policy import RetryPolicy

MESSAGES, RETRIES = 1000, 5


def busiest_second(delay_s: Callable[[int], float]) -> int:
    """How many of the messages come back in the same second."""
    return max(Counter(int(delay_s(RETRIES)) for _ in range(MESSAGES)).values())


def test_wrong_all_that_failed_together_come_back_together() -> None:
    assert busiest_second(retries.delay_s) == MESSAGES


def test_right_full_jitter_spreads_them_over_the_whole_delay() -> None:
    random.seed(5)
    # 32 seconds for 1,000 messages are 31 a second.
    assert busiest_second(RetryPolicy(limit=12).delay_s) < 2 * MESSAGES / 2**RETRIES


def test_right_no_delay_is_longer_than_its_cap() -> None:
    assert max(RetryPolicy(limit=None, backoff_max_s=300).delay_s(retries) for retries in range(100)) <= 300
