"""payments/tasks.py: what is only "not now" costs a message time, and no attempt."""

from __future__ import annotations

from typing import Any

import pytest

import outbox
from orders.models import Order
from orders.services import OrderService, cancel_order
from outbox.testing import drain
from payments.gateway.client import PaymentGateway
from payments.gateway.errors import GatewayUnavailable
from payments.models import Invoice, Refund
from payments.tasks import reconcile, refund_order
from tests.lab.sandbox_fixture import RunningSandbox
from tests.payments.conftest import MakeOrder


@pytest.fixture
def cancelled(make_order: MakeOrder, sandbox_settings: RunningSandbox) -> Order:
    return make_order(status="cancelled", payment_intent_id=PaymentGateway.charge(1, 9999).id)


def test_an_open_circuit_defers_until_it_may_close(cancelled: Order, sandbox: RunningSandbox) -> None:
    sandbox.faults(gateway={"error_rate": 1})
    for _ in range(5):
        with pytest.raises(GatewayUnavailable):
            refund_order(cancelled.pk)
    with pytest.raises(outbox.Defer) as caught:
        refund_order(cancelled.pk)
    assert 25 < caught.value.seconds <= 30
    with pytest.raises(outbox.Defer):
        reconcile()


def test_a_rate_limit_defers_as_long_as_it_says(cancelled: Order, sandbox: RunningSandbox) -> None:
    sandbox.faults(gateway={"rate_limit_rate": 1, "retry_after": 7})
    with pytest.raises(outbox.Defer) as caught:
        refund_order(cancelled.pk)
    assert caught.value.seconds == 7


def test_a_busy_gateway_without_retry_after_defers_a_minute(
    cancelled: Order, mocker: Any, settings: Any
) -> None:
    """Times `RETRY_SCALE`."""
    settings.RETRY_SCALE = 0.5
    busy = PaymentGateway.retrieve(cancelled.payment_intent_id)
    mocker.patch.object(PaymentGateway, "retrieve", return_value=_processing(busy))
    with pytest.raises(outbox.Defer) as caught:
        refund_order(cancelled.pk)
    assert caught.value.seconds == 30


def _processing(intent: Any) -> Any:
    # The sandbox captures at once; Stripe may take a while with some banks.
    return type(intent)(**intent.__dict__ | {"status": "processing", "captured_cents": 0})


def test_cancelling_a_charged_order_gives_its_money_back_once(
    make_order: MakeOrder, sandbox_settings: RunningSandbox
) -> None:
    order = make_order()
    assert OrderService.process(order_id=order.pk)["status"] == "completed"
    for _ in range(2):
        cancel_order(order_id=order.pk)
    drain()
    assert Refund.objects.get().status == "succeeded"
    assert len(sandbox_settings.ledger("charges", order_id=order.pk)) == 1
    assert len(sandbox_settings.ledger("refunds", order_id=order.pk)) == 1
    assert Invoice.objects.get().order_id == order.pk
