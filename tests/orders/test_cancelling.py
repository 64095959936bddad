"""Cancelling: at any moment, once, and the money and the goods go back to where they belong."""

import threading
from unittest.mock import MagicMock

import pytest
from django.db import connection, transaction
from pytest_mock import MockerFixture

from orders import effects, lifecycle
from orders.models import Order, OrderTransition
from orders.services import CannotCancel, OrderService, cancel_order
from outbox.testing import clear, drain, staged
from payments.gateway import CardDeclined, Refunded
from tests.orders.conftest import place, quiet, run_all, units
from tests.support.locks import wait_until_blocked


def test_pending_order_is_cancelled_at_once_and_its_stock_is_free(shop: None, charge: MagicMock) -> None:
    before = units()
    order = place(quantity=4)
    cancelled = cancel_order(order_id=order.id, reason="changed my mind")
    assert cancelled.status == "cancelled"
    assert cancelled.cancelled_at is not None
    assert units() == before
    assert not staged("payments.tasks.refund_order")
    assert OrderService.process(order_id=order.id)["status"] == "cancelled"
    assert charge.call_count == 0


def test_cancelling_again_changes_nothing(shop: None) -> None:
    before = units()
    order = place(quantity=4)
    first = cancel_order(order_id=order.id)
    again = cancel_order(order_id=order.id)
    assert again.cancelled_at == first.cancelled_at
    assert units() == before
    assert len(staged("webhooks.tasks.publish_event")) == 1
    assert OrderTransition.objects.filter(order=order, to_status="cancelled").count() == 1


def test_completed_order_is_refunded_once(shop: None, charge: MagicMock) -> None:
    order = place()
    OrderService.process(order_id=order.id)
    clear()
    cancel_order(order_id=order.id)
    cancel_order(order_id=order.id)
    (refund,) = staged("payments.tasks.refund_order")
    assert refund.kwargs["order_id"] == order.id
    assert refund.correlation_id == f"order-{order.id}"


def test_refund_of_a_cancelled_order_names_the_payment_that_the_charge_returned(
    shop: None, charge: MagicMock, mocker: MockerFixture
) -> None:
    quiet(mocker)
    refund = mocker.patch("payments.gateway.PaymentGateway.refund")
    refund.return_value = Refunded("re_1", "succeeded", 2164)
    order = place()
    drain()
    cancel_order(order_id=order.id)
    drain()
    refund.assert_called_once_with("txn_123", order_id=order.id, idempotency_key=f"refund-order-{order.id}")


def test_failed_order_cannot_be_cancelled(shop: None, charge: MagicMock) -> None:
    charge.side_effect = CardDeclined("no")
    order = place()
    OrderService.process(order_id=order.id)
    with pytest.raises(CannotCancel, match="is failed"):
        cancel_order(order_id=order.id)


def test_order_whose_worker_died_in_the_charge_is_refunded_by_the_cancellation(shop: None) -> None:
    order = place()
    clear()
    held = lifecycle.claim(order_id=order.id, owner="dead")
    assert held is not None
    lifecycle.keep_intent(held, "pi_1")
    lifecycle.release(held)
    cancel_order(order_id=order.id)
    assert len(staged("payments.tasks.refund_order")) == 1


def test_units_that_have_left_the_house_stay_shipped(shop: None, charge: MagicMock) -> None:
    order = place(quantity=2)
    OrderService.process(order_id=order.id)
    effects.ship_stock(order_id=order.id)
    shipped = units()
    cancel_order(order_id=order.id)
    assert units() == shipped
    assert shipped[2] == 2


def test_units_of_a_cancelled_order_do_not_leave_the_house(shop: None, charge: MagicMock) -> None:
    before = units()
    order = place(quantity=2)
    OrderService.process(order_id=order.id)
    cancel_order(order_id=order.id)
    assert not effects.ship_stock(order_id=order.id)
    assert units() == before


def test_unknown_order_cannot_be_cancelled(shop: None) -> None:
    with pytest.raises(Order.DoesNotExist):
        cancel_order(order_id=999_999)


def test_cancellation_without_its_event_is_rolled_back(shop: None, mocker: MockerFixture) -> None:
    before = units()
    order = place()
    mocker.patch("outbox.emit", side_effect=RuntimeError)
    with pytest.raises(RuntimeError):
        cancel_order(order_id=order.id)
    order.refresh_from_db()
    assert order.status == "pending"
    assert units() == (before[0] - 1, before[1] + 1, 0)


def test_cancellation_waits_for_a_completion_that_is_being_committed(busy_shop: None) -> None:
    """Both change one row: what read the order before the other's commit would undo it."""
    order = place()
    clear()
    held = lifecycle.claim(order_id=order.id, owner="a")
    assert held is not None
    completed = threading.Event()

    def complete() -> None:
        try:
            with transaction.atomic():
                assert lifecycle.complete(held, payment_id="pi_1")
                completed.set()
                wait_until_blocked(1)
        finally:
            connection.close()

    def cancel() -> None:
        try:
            assert completed.wait(30)
            cancel_order(order_id=order.id)
        finally:
            connection.close()

    run_all([complete, cancel])
    order.refresh_from_db()
    assert (order.status, order.processing_count, order.payment_id) == ("cancelled", 1, "pi_1")
    assert len(staged("payments.tasks.refund_order")) == 1
    steps = OrderTransition.objects.filter(order=order).values_list("from_status", "to_status")
    assert list(steps)[-2:] == [("processing", "completed"), ("completed", "cancelled")]
