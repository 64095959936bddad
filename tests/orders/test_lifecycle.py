"""Who holds an order: leases, fences, and what is left to a holder whose order was taken away."""

import threading
from datetime import timedelta
from typing import Any
from unittest.mock import MagicMock

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now
from pytest_mock import MockerFixture

from orders import lifecycle
from orders.models import Order, OrderTransition
from orders.services import cancel_order
from orders.tasks import process_order
from outbox.models import OutboxMessage
from outbox.testing import clear, drain, staged
from tests.orders.conftest import place, quiet, units
from tests.support.locks import wait_until_blocked


class TestClaim:
    def test_live_lease_shuts_everybody_else_out(self, pending_order: Order) -> None:
        assert lifecycle.claim(order_id=pending_order.id, owner="a") is not None
        assert lifecycle.claim(order_id=pending_order.id, owner="b") is None
        assert 50 < lifecycle.lease_left_s(pending_order.id) <= lifecycle.LEASE_S

    @pytest.mark.promise("P4", "the holder of a claim dies", "the next run claims it after the lease")
    def test_lease_that_ran_out_lets_the_next_one_in(self, pending_order: Order) -> None:
        lifecycle.claim(order_id=pending_order.id, owner="a")
        Order.objects.filter(pk=pending_order.id).update(lease_until=Now() - timedelta(seconds=1))

        taken = lifecycle.claim(order_id=pending_order.id, owner="b")

        assert taken is not None
        assert taken.fence == 2

    def test_rerun_of_the_same_message_need_not_wait_for_its_dead_predecessor(
        self, pending_order: Order
    ) -> None:
        lifecycle.claim(order_id=pending_order.id, owner="message-1")
        again = lifecycle.claim(order_id=pending_order.id, owner="message-1")
        assert again is not None
        assert again.fence == 2

    def test_claim_that_waits_for_another_finds_the_order_taken(self, busy_shop: None) -> None:
        order = place()
        claimed: list[Order | None] = []

        def claim() -> None:
            try:
                claimed.append(lifecycle.claim(order_id=order.id, owner="b"))
            finally:
                connection.close()

        thread = threading.Thread(target=claim)
        with transaction.atomic():
            claimed.append(lifecycle.claim(order_id=order.id, owner="a"))
            thread.start()
            wait_until_blocked(1)
        thread.join(10)
        first, second = claimed
        assert first is not None
        assert second is None
        assert OrderTransition.objects.filter(order=order, to_status="processing").count() == 1

    def test_take_over_is_logged_as_one(self, pending_order: Order) -> None:
        for owner in ("message-1", "message-1"):
            lifecycle.claim(order_id=pending_order.id, owner=owner)
        log = OrderTransition.objects.filter(order=pending_order)
        assert list(log.values_list("from_status", "to_status", "note")) == [
            ("pending", "processing", ""),
            ("processing", "processing", "taken over"),
        ]

    @pytest.mark.promise("P3", "a worker is frozen past its lease and goes on", "its writes change no row")
    def test_zombie_can_neither_complete_nor_fail_nor_release_nor_keep_an_intent(
        self, pending_order: Order
    ) -> None:
        zombie = lifecycle.claim(order_id=pending_order.id, owner="message-1")
        successor = lifecycle.claim(order_id=pending_order.id, owner="message-1")
        assert zombie is not None
        assert successor is not None

        assert not lifecycle.complete(zombie, payment_id="pi_zombie")
        assert not lifecycle.fail(zombie, reason="late")
        assert not lifecycle.release(zombie)
        with pytest.raises(lifecycle.ClaimLost):
            lifecycle.keep_intent(zombie, "pi_zombie")

        assert lifecycle.complete(successor, payment_id="pi_1")
        pending_order.refresh_from_db()
        assert (pending_order.status, pending_order.payment_id) == ("completed", "pi_1")

    def test_committed_intent_is_never_replaced(self, pending_order: Order) -> None:
        held = lifecycle.claim(order_id=pending_order.id, owner="a")
        assert held is not None
        lifecycle.keep_intent(held, "pi_1")
        with pytest.raises(lifecycle.ClaimLost):
            lifecycle.keep_intent(held, "pi_2")

    def test_every_change_of_status_is_logged_with_the_message_that_made_it(
        self, shop: None, charge: MagicMock, mocker: MockerFixture
    ) -> None:
        quiet(mocker)
        order = place()
        drain()
        message_id = OutboxMessage.objects.get(task="orders.tasks.process_order").message_id
        steps = OrderTransition.objects.filter(order=order).values_list(
            "from_status", "to_status", "message_id"
        )
        assert list(steps) == [
            ("", "pending", None),
            ("pending", "processing", message_id),
            ("processing", "completed", message_id),
        ]


class TestCancelledWhileCharging:
    """Cancellation and completion race; the money ends where the order does."""

    @pytest.mark.promise(
        "P3",
        "an order is cancelled while it is charged",
        "the completion loses, and the charge is refunded once",
    )
    def test_completion_loses_and_has_the_charge_refunded(self, shop: None, mocker: MockerFixture) -> None:
        order = place(quantity=2)
        clear()
        before = units()

        def charge(*_args: Any, **_kwargs: Any) -> MagicMock:
            cancel_order(order_id=order.id)
            return MagicMock(id="pi_1")

        mocker.patch("payments.gateway.PaymentGateway.charge", side_effect=charge)
        assert process_order(order.id)["status"] == "cancelled"
        order.refresh_from_db()
        assert (order.status, order.payment_id, order.processing_count) == ("cancelled", "pi_1", 0)
        assert len(staged("payments.tasks.refund_order")) == 1
        assert not staged("orders.tasks.send_receipt")
        assert units() == (before[0] + 2, before[1] - 2, 0)

    def test_charge_is_not_confirmed_once_the_order_is_cancelled(
        self, shop: None, mocker: MockerFixture
    ) -> None:
        order = place()
        clear()
        confirmed: list[str] = []

        def charge(*_args: Any, on_created: Any, **_kwargs: Any) -> MagicMock:
            cancel_order(order_id=order.id)
            on_created("pi_1")
            confirmed.append("pi_1")
            return MagicMock(id="pi_1")

        mocker.patch("payments.gateway.PaymentGateway.charge", side_effect=charge)
        assert process_order(order.id)["status"] == "cancelled"
        assert not confirmed
        assert not staged("payments.tasks.refund_order")

    def test_rerun_after_a_crash_has_a_possible_charge_refunded_once(
        self, shop: None, mocker: MockerFixture
    ) -> None:
        order = place()
        clear()

        def charge(*_args: Any, on_created: Any, **_kwargs: Any) -> MagicMock:
            on_created("pi_1")
            cancel_order(order_id=order.id)
            raise KeyboardInterrupt  # the worker is killed: nothing below it may run

        mocker.patch("payments.gateway.PaymentGateway.charge", side_effect=charge)
        with pytest.raises(KeyboardInterrupt):
            process_order(order.id)
        assert not staged("payments.tasks.refund_order")
        assert process_order(order.id)["status"] == "cancelled"
        assert process_order(order.id)["status"] == "cancelled"
        assert len(staged("payments.tasks.refund_order")) == 1

    def test_charge_found_after_a_refund_of_nothing_asks_again(self, shop: None) -> None:
        order = place()
        clear()
        held = lifecycle.claim(order_id=order.id, owner="frozen")
        assert held is not None
        lifecycle.keep_intent(held, "pi_1")
        cancel_order(order_id=order.id)
        assert lifecycle.request_refund(order_id=order.id)
        assert lifecycle.request_refund(order_id=order.id, payment_id="pi_1")
        assert not lifecycle.request_refund(order_id=order.id, payment_id="pi_1")
        assert not lifecycle.request_refund(order_id=order.id)
