"""Overload: a clear no with a time to come back, and no order lost to it."""

from typing import Any

import pytest
from django.db import OperationalError
from pytest_mock import MockerFixture
from redis.exceptions import ConnectionError as RedisUnreachable

from orders.api import limits
from orders.api.problems import busy
from orders.models import ApiKey, Order
from outbox.testing import clear
from resilience.dedup import release, seen_key
from tests.orders.conftest import Caller, body
from tests.orders.test_api import problem


@pytest.fixture(autouse=True)
def _fresh_count() -> None:
    limits._admission.cache_clear()


def test_key_that_places_too_fast_is_a_429_and_others_are_served(api: Caller, settings: Any) -> None:
    settings.ORDERS_PER_SECOND = 2
    answers = [api.post(body(), key=f"key-{number}") for number in range(6)]
    limited = [answer for answer in answers if answer.status_code == 429]
    assert limited
    assert problem(limited[0], 429)["code"] == "rate_limited"
    assert int(limited[0]["Retry-After"]) >= 1
    assert Order.objects.count() == 6 - len(limited)
    assert Caller(ApiKey.issue("other")[1]).post(body()).status_code == 202


def test_key_that_places_too_fast_is_named_in_the_log_once(
    api: Caller, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.ORDERS_PER_SECOND = 0.001
    release(seen_key(f"rate-limited-{ApiKey.objects.get().pk}"))
    answers = [api.post(body(), key=f"key-{number}").status_code for number in range(5)]
    assert answers.count(429) >= 4
    assert sum("ORDERS_PER_SECOND" in line for line in caplog.messages) == 1


@pytest.mark.parametrize(("wait_s", "told"), [(0, "1"), (0.2, "1"), (2.0, "2"), (2.4, "3")])
def test_wait_that_a_client_is_told_is_not_shorter_than_the_wait(wait_s: float, told: str) -> None:
    assert busy(429, "rate_limited", "Later.", retry_after_s=wait_s).headers["Retry-After"] == told


@pytest.mark.promise("P1", "Redis is down", "orders are accepted, without the rate limit")
def test_orders_are_taken_while_redis_is_down(api: Caller, mocker: MockerFixture) -> None:
    """The limit spares us; an order that is refused because a cache is down is lost business."""
    mocker.patch("redis.Redis.eval", side_effect=RedisUnreachable("down"))
    assert api.post(body()).status_code == 202


@pytest.mark.promise("P6", "all workers are down for hours", "new orders are answered 503")
def test_backlog_at_its_limit_is_a_503_until_it_is_worked_off(api: Caller, settings: Any) -> None:
    settings.ORDERS_MAX_BACKLOG = 2
    assert api.post(body()).status_code == 202
    limits._admission.cache_clear()

    refused = api.post(body(), key="key-2")

    assert problem(refused, 503)["code"] == "overloaded"
    assert int(refused["Retry-After"]) >= 1
    assert Order.objects.count() == 1
    assert api.post(body()).status_code == 202, "what was accepted before is answered whatever the load"
    assert api.get().status_code == 200

    clear()
    limits._admission.cache_clear()
    assert api.post(body(), key="key-2").status_code == 202


@pytest.mark.promise(
    "P1",
    "the database is down",
    "503 with `Retry-After`, and the advice to repeat the request with the same key",
)
def test_database_unavailable_is_a_503_that_asks_for_the_same_key_again(
    api: Caller, mocker: MockerFixture
) -> None:
    mocker.patch("orders.api.views.place_order", side_effect=OperationalError("server closed the connection"))
    answer = api.post(body())
    assert "repeat it, with its Idempotency-Key" in problem(answer, 503)["detail"]
    assert int(answer["Retry-After"]) >= 1


def test_database_unavailable_before_the_key_is_checked_is_a_503_too(
    api: Caller, mocker: MockerFixture
) -> None:
    mocker.patch("orders.api.auth.ApiKey.objects.filter", side_effect=OperationalError("no connection"))
    problem(api.get(), 503)
