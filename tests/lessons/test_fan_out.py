"""Lesson "fan-out": an order is completed, and the CRM is down for the first call."""

from __future__ import annotations

from unittest.mock import MagicMock

import pytest
from pytest_mock import MockerFixture

from lab.lessons import fan_out
from orders.crm import ServiceUnavailable
from orders.models import Order
from orders.services import OrderService
from outbox.testing import clear, drain, staged
from tests.orders.conftest import place, quiet


@pytest.fixture
def placed(shop: None, charge: MagicMock) -> Order:
    order = place()
    clear()
    return order


def test_wrong_a_retry_repeats_what_had_succeeded() -> None:
    send_receipt, sync = MagicMock(), MagicMock(side_effect=[ServiceUnavailable("503"), None])

    with pytest.raises(ServiceUnavailable):
        fan_out.after_completion(1, [send_receipt, sync])
    fan_out.after_completion(1, [send_receipt, sync])

    assert (send_receipt.call_count, sync.call_count) == (2, 2)


@pytest.mark.described("small jobs: what has succeeded is not repeated when another step fails")
def test_right_each_step_is_a_message_that_is_retried_alone(placed: Order, mocker: MockerFixture) -> None:
    quiet(mocker)
    send_receipt = mocker.patch("notifications.services.EmailService.send_receipt")
    sync = mocker.patch("orders.crm.SyncService.sync", side_effect=[ServiceUnavailable("503"), None])

    OrderService.process(order_id=placed.pk)
    assert len(staged()) == 7

    drain()
    assert (send_receipt.call_count, sync.call_count) == (1, 2)
