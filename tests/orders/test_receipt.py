"""The receipt of an order that is processed twice, while every other external service is unreachable."""

from unittest.mock import MagicMock

import pytest
from pytest_mock import MockerFixture

from orders.models import Order
from orders.tasks import process_order
from outbox.models import OutboxMessage
from outbox.testing import drain, staged


@pytest.fixture
def send_receipt(mocker: MockerFixture) -> MagicMock:
    mocker.patch("payments.gateway.PaymentGateway.charge", return_value=MagicMock(id="txn_123"))
    return mocker.patch("notifications.services.EmailService.send_receipt")


def test_the_receipt_is_sent_once_and_needs_no_other_service(
    pending_order: Order, send_receipt: MagicMock
) -> None:
    process_order(pending_order.id)
    process_order(pending_order.id)
    assert drain("orders.tasks.send_receipt") == 1
    assert send_receipt.call_count == 1
    assert {m.attempts for m in staged()} == {0}
    assert len(staged("orders.tasks.sync_to_crm")) == 1


def test_drain_names_what_an_unreachable_service_holds_up(
    pending_order: Order, send_receipt: MagicMock
) -> None:
    """After it has run everything else."""
    process_order(pending_order.id)
    process_order(pending_order.id)
    with pytest.raises(AssertionError, match=r"orders\.tasks\.sync_to_crm .*the CRM is down") as raised:
        drain(seconds_per_message=0.2)
    assert send_receipt.call_count == 1
    assert "orders.tasks.send_receipt" not in str(raised.value)
    assert OutboxMessage.objects.get(task="orders.tasks.update_inventory").status == "done"
