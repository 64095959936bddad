"""Lesson "circuit breaker": twenty jobs call a warehouse that is down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
from circuitbreaker import CircuitBreakerMonitor
from pytest_mock import MockerFixture

from lab.lessons import circuit_breaker
from orders.models import Order
from orders.tasks import notify_warehouse
from orders.warehouse import RECOVERY_TIMEOUT_S
from outbox.testing import staged
from resilience import breaker
from tests.orders.conftest import place

JOBS = 20


@pytest.fixture(autouse=True)
def closed_circuits(mocker: MockerFixture) -> Iterator[None]:
    breaker.reset_all()
    # As long as in production: the tests' time is scaled, and a slow machine would see a probe.
    mocker.patch.object(CircuitBreakerMonitor.get("warehouse"), "_recovery_timeout", RECOVERY_TIMEOUT_S)
    yield
    breaker.reset_all()


@pytest.fixture
def order(shop: None) -> Order:
    return place()


def test_wrong_every_job_spends_all_its_attempts(mocker: MockerFixture) -> None:
    call = mocker.Mock(side_effect=ConnectionError("down"))

    for _ in range(JOBS):
        with suppress(ConnectionError):
            circuit_breaker.notify(call)

    assert call.call_count == JOBS * 3


def test_right_five_failures_open_the_circuit_and_the_rest_wait(order: Order, mocker: MockerFixture) -> None:
    call = mocker.patch("requests.post", side_effect=ConnectionError("down"))

    answers = []
    for _ in range(JOBS):
        with suppress(ConnectionError):
            answers.append(notify_warehouse(order.pk))

    assert call.call_count == 5
    assert [answer["status"] for answer in answers] == ["queued_for_retry"] * (JOBS - 5)
    assert all(answer["retry_after"] > 0 for answer in answers)
    assert len(staged("orders.tasks.notify_warehouse")) == JOBS - 5
