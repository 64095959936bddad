from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from resilience.retry import RETRY_AFTER_MINIMUM_S, backoff, parse_retry_after, scheduled_delay


def longest(low: float, high: float) -> float:
    return high


@pytest.mark.parametrize(
    ("retries", "limit"), [(0, 1), (1, 2), (2, 4), (3, 8), (8, 256), (9, 300), (10_000, 300)]
)
def test_the_upper_bound_doubles_up_to_the_cap(retries: int, limit: float) -> None:
    assert backoff(retries, base=1.0, cap=300.0, jitter=longest) == limit


def test_jitter_spreads_delays_over_the_whole_range() -> None:
    delays = [backoff(5, base=1, cap=300) for _ in range(2000)]
    assert all(0 <= delay <= 32 for delay in delays)
    assert min(delays) < 4
    assert max(delays) > 28
    assert 14 < sum(delays) / len(delays) < 18


def test_callers_that_failed_together_do_not_come_back_together() -> None:
    assert len({backoff(3) for _ in range(100)}) == 100


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        backoff(-1)


def test_a_schedule_gives_its_delays_in_turn_and_then_none() -> None:
    assert [scheduled_delay(n, (60, 300, 1800)) for n in range(5)] == [60.0, 300.0, 1800.0, None, None]


def test_retry_after_in_seconds() -> None:
    assert parse_retry_after(" 120 ") == 120.0


def test_retry_after_as_a_date() -> None:
    then = datetime.now(UTC) + timedelta(seconds=90)
    assert 85 < parse_retry_after(format_datetime(then, usegmt=True)) <= 90


def test_retry_after_as_a_date_counts_from_the_servers_own_clock() -> None:
    wait = parse_retry_after("Wed, 21 Oct 2015 07:28:30 GMT", date="Wed, 21 Oct 2015 07:28:00 GMT")
    assert wait == 30.0


@pytest.mark.parametrize("value", ["0", "000", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_server_that_says_now_cannot_have_us_in_a_loop_without_a_pause(value: str) -> None:
    assert parse_retry_after(value) == RETRY_AFTER_MINIMUM_S == 1.0


@pytest.mark.parametrize("value", [None, "", "soon", "-5", "1.5", "٣", "Wed, 99 Oct 2015"])
def test_a_missing_or_malformed_value_gives_the_default(value: str | None) -> None:
    assert parse_retry_after(value, default=60.0) == 60.0


@pytest.mark.parametrize("value", ["86400", "9" * 5000, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_server_that_asks_for_a_year_is_capped(value: str) -> None:
    assert parse_retry_after(value, cap=3600.0) == 3600.0
