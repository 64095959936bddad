from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from resilience.retry_after import RETRY_AFTER_MINIMUM_S, parse_retry_after


def test_retry_after_in_seconds() -> None:
    assert parse_retry_after(" 120 ") == 120.0


def test_retry_after_as_a_date() -> None:
    then = datetime.now(UTC) + timedelta(seconds=90)
    assert 85 < parse_retry_after(format_datetime(then, usegmt=True)) <= 90


def test_retry_after_as_a_date_counts_from_the_servers_own_clock() -> None:
    wait = parse_retry_after("Wed, 21 Oct 2015 07:28:30 GMT", date="Wed, 21 Oct 2015 07:28:00 GMT")
    assert wait == 30.0


@pytest.mark.parametrize("value", ["0", "000", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_server_that_says_now_still_causes_a_pause(value: str) -> None:
    assert parse_retry_after(value) == RETRY_AFTER_MINIMUM_S == 1.0


@pytest.mark.parametrize("value", [None, "", "soon", "-5", "1.5", "٣", "Wed, 99 Oct 2015"])
def test_a_missing_or_malformed_value_gives_the_default(value: str | None) -> None:
    assert parse_retry_after(value, default=60.0) == 60.0
    assert parse_retry_after(value) is None


@pytest.mark.parametrize("value", ["86400", "9" * 5000, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_server_that_asks_for_a_year_is_capped(value: str) -> None:
    assert parse_retry_after(value, cap=3600.0) == 3600.0
