"""The warehouse's circuit: five failures in a row open it; refusals and 429s do not."""

import io
from typing import Any
from unittest.mock import MagicMock

import pytest
import requests
from celery.exceptions import SoftTimeLimitExceeded
from circuitbreaker import CircuitBreakerError, CircuitBreakerMonitor
from pytest_mock import MockerFixture

from orders import warehouse
from orders.outbound import RateLimited, Refused
from orders.warehouse import call_external_api
from payments.gateway import PaymentGateway
from tests.lab.sandbox_fixture import RunningSandbox
from tests.orders.conftest import Call


@pytest.mark.described(
    "`call_external_api` under `@circuit(5, 30)`: the sixth call raises `CircuitBreakerError`"
)
def test_circuit_opens_after_five_failures(mocker: MockerFixture) -> None:
    post = mocker.patch("requests.post", side_effect=ConnectionError("API down"))
    for _ in range(5):
        with pytest.raises(ConnectionError):
            call_external_api({"test": "data"})
    with pytest.raises(CircuitBreakerError):
        call_external_api({"test": "data"})
    assert post.call_count == 5


def test_refusals_and_429s_are_answers_of_a_warehouse_that_is_up(mocker: MockerFixture) -> None:
    post = mocker.patch("requests.post", return_value=MagicMock(status_code=422, text="no"))
    for _ in range(10):
        with pytest.raises(Refused):
            call_external_api({})
    post.return_value = MagicMock(status_code=429, headers={})
    for _ in range(10):
        with pytest.raises(RateLimited):
            call_external_api({})
    assert post.call_count == 20


@pytest.mark.parametrize(
    "answer",
    [
        MagicMock(status_code=500),
        MagicMock(status_code=302),
        MagicMock(status_code=200, json=MagicMock(return_value=[])),
    ],
    ids=["500", "redirect", "no object"],
)
def test_unusable_answer_is_a_failure(mocker: MockerFixture, answer: MagicMock) -> None:
    mocker.patch("requests.post", return_value=answer)
    for _ in range(5):
        with pytest.raises(OSError, match="answered"):
            call_external_api({})
    with pytest.raises(CircuitBreakerError):
        call_external_api({})


def test_warehouse_whose_answers_drip_is_given_up_and_opens_the_circuit(
    sandbox_settings: RunningSandbox, mocker: MockerFixture
) -> None:
    mocker.patch("orders.outbound.TOTAL_S", 0.3)
    sandbox_settings.faults(warehouse={"slow_drip_rate": 1, "slow_drip_ms": 30_000})
    for number in range(5):
        with pytest.raises(requests.Timeout, match="not complete"):
            call_external_api({"order_id": number}, idempotency_key=f"drip-{number}")
    with pytest.raises(CircuitBreakerError):
        call_external_api({})


def test_long_answer_arrives_whole(mocker: MockerFixture) -> None:
    answer = requests.Response()
    answer.status_code, answer.raw = 200, io.BytesIO(b'{"text": "' + 100_000 * b"x" + b'"}')
    mocker.patch("requests.post", return_value=answer)
    assert call_external_api({}) == {"text": 100_000 * "x"}


@pytest.mark.parametrize(
    ("circuit", "call"),
    [("warehouse", call_external_api), ("payment-gateway", PaymentGateway.charge)],
    ids=["warehouse", "gateway"],
)
def test_probe_that_the_time_limit_interrupts_does_not_close_an_open_circuit(
    mocker: MockerFixture, circuit: str, call: Call
) -> None:
    breaker = CircuitBreakerMonitor.get(circuit)
    mocker.patch("requests.post", side_effect=SoftTimeLimitExceeded)
    mocker.patch("payments.gateway.transport.BoundedTransport.request", side_effect=SoftTimeLimitExceeded)
    arguments: Any = ({},) if circuit == "warehouse" else (1, 500)
    for _ in range(5):
        with pytest.raises(SoftTimeLimitExceeded):
            call(*arguments)
    assert breaker.state == "open"
    mocker.patch.object(breaker, "_opened", breaker._opened - breaker._recovery_timeout)
    assert breaker.state == "half_open"
    with pytest.raises(SoftTimeLimitExceeded):
        call(*arguments)
    assert breaker.state == "open"


def test_redirect_is_not_followed_and_the_call_has_an_end(mocker: MockerFixture) -> None:
    post = mocker.patch("requests.post", return_value=MagicMock(status_code=200, json=lambda: {"id": 1}))
    assert call_external_api({"order_id": 1}, idempotency_key="shipment-order-1") == {"id": 1}
    sent = post.call_args.kwargs
    assert sent["allow_redirects"] is False
    assert sent["timeout"] == 3.0
    assert sent["headers"] == {"Idempotency-Key": "shipment-order-1"}


def test_circuit_has_the_documents_figures() -> None:
    circuit = CircuitBreakerMonitor.get("warehouse")
    assert circuit._failure_threshold == warehouse.FAILURE_THRESHOLD == 5
    assert warehouse.RECOVERY_TIMEOUT_S == 30
