"""Processing: one charge and one completion, however often and wherever the order is processed."""

import threading
import uuid
from typing import Any
from unittest.mock import MagicMock

import pytest
from circuitbreaker import CircuitBreakerError
from django.db import connection
from pytest_mock import MockerFixture

from orders import lifecycle
from orders.models import Order
from orders.services import OrderService
from orders.tasks import process_order
from outbox.models import OutboxMessage
from outbox.testing import drain, staged
from payments.gateway import CardDeclined, GatewayBusy, GatewayUnavailable, InvalidRequest
from resilience.breaker import Breaker
from tests.lab.sandbox_fixture import RunningSandbox
from tests.orders.conftest import place, quiet, units


class TestProcessingTwice:
    @pytest.mark.described("`process_order`, run twice, charges once")
    def test_charges_once(self, pending_order: Order, charge: MagicMock) -> None:
        process_order(pending_order.id)
        process_order(pending_order.id)
        assert charge.call_count == 1

    @pytest.mark.described("`process_order`, run twice, sends one receipt (`EmailService.send_receipt`)")
    def test_sends_one_receipt(self, pending_order: Order, charge: MagicMock, mocker: MockerFixture) -> None:
        quiet(mocker)
        send_receipt = mocker.patch("notifications.services.EmailService.send_receipt")
        process_order(pending_order.id)
        process_order(pending_order.id)
        drain()
        assert send_receipt.call_count == 1

    @pytest.mark.described("the second call returns `already_processed`")
    def test_says_already_processed_the_second_time(self, pending_order: Order, charge: MagicMock) -> None:
        assert process_order(pending_order.id) == {"status": "completed", "order_id": pending_order.id}
        assert process_order(pending_order.id) == {
            "status": "already_processed",
            "order_id": pending_order.id,
        }

    @pytest.mark.described("a total that is added to in place grows with each run; here it is derived once")
    def test_charges_the_amount_that_was_derived_once(self, pending_order: Order, charge: MagicMock) -> None:
        process_order(pending_order.id)
        assert charge.call_args.args == (1, 9999)
        pending_order.refresh_from_db()
        assert (pending_order.total_cents, pending_order.processing_count) == (9999, 1)


@pytest.mark.described("five threads process one order at once: one charge, no error")
@pytest.mark.promise("P3", "five threads process one order at once", "one charge, no error")
def test_five_threads_at_once_charge_once_and_none_sees_an_error(busy_shop: None, charge: MagicMock) -> None:
    order = Order.objects.create(customer_id=1, total_cents=9999, status="pending")
    together = threading.Barrier(5)
    charge.side_effect = lambda *_args, **_kwargs: MagicMock(id="txn_123")
    results: list[str] = []
    errors: list[BaseException] = []

    def run_job() -> None:
        try:
            together.wait(10)
            results.append(process_order(order.id)["status"])
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run_job) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert not errors
    assert charge.call_count == 1
    assert results.count("completed") == 1
    assert set(results) <= {"completed", "already_processed", "in_progress"}
    order.refresh_from_db()
    assert (order.status, order.processing_count) == ("completed", 1)


@pytest.mark.described("one event has several jobs follow (fan-out)")
def test_completion_and_its_fan_out_are_committed_together(pending_order: Order, charge: MagicMock) -> None:
    process_order(pending_order.id)
    follow_up = {message.task: message for message in staged()}
    assert set(follow_up) == {
        "orders.tasks.send_receipt",
        "payments.tasks.create_invoice",
        "orders.tasks.update_inventory",
        "orders.tasks.notify_warehouse",
        "orders.tasks.sync_to_crm",
        "orders.tasks.track_analytics",
        "webhooks.tasks.publish_event",
    }
    for message in follow_up.values():
        assert message.kwargs == {"event": "order.completed", "order_id": pending_order.id}
        assert message.correlation_id == f"order-{pending_order.id}"


def test_completion_without_its_fan_out_is_rolled_back(
    pending_order: Order, charge: MagicMock, mocker: MockerFixture
) -> None:
    mocker.patch("outbox.emit", side_effect=RuntimeError("no room for messages"))
    with pytest.raises(RuntimeError):
        process_order(pending_order.id)
    pending_order.refresh_from_db()
    assert (pending_order.status, pending_order.processing_count) == ("processing", 0)


def test_declined_card_fails_the_order_and_returns_the_stock(
    shop: None, charge: MagicMock, mocker: MockerFixture
) -> None:
    """It is no dead letter."""
    quiet(mocker)
    before = units()
    order = place(quantity=3)
    charge.side_effect = CardDeclined("Your card was declined.", "card_declined")
    drain()
    order.refresh_from_db()
    assert (order.status, order.failure_reason) == ("failed", "Your card was declined.")
    assert units() == before
    assert not OutboxMessage.objects.filter(status="dead").exists()
    published = OutboxMessage.objects.get(task="webhooks.tasks.publish_event")
    assert published.kwargs == {"event": "order.failed", "order_id": order.id}
    assert process_order(order.id)["status"] == "already_processed"


def test_unknown_payment_method_fails_the_order_like_a_declined_card(
    shop: None, sandbox_settings: RunningSandbox, mocker: MockerFixture
) -> None:
    quiet(mocker)
    before = units()
    order = place(quantity=3, payment_method="pm_nope")
    drain()
    order.refresh_from_db()
    assert (order.status, order.payment_id) == ("failed", "")
    assert "No such PaymentMethod: 'pm_nope'" in order.failure_reason
    assert units() == before
    assert not OutboxMessage.objects.filter(status="dead").exists()
    published = OutboxMessage.objects.get(task="webhooks.tasks.publish_event")
    assert published.kwargs == {"event": "order.failed", "order_id": order.id}


def test_ambiguous_answer_is_retried_at_once_because_the_claim_was_released(
    shop: None, charge: MagicMock, mocker: MockerFixture
) -> None:
    quiet(mocker)
    order = place()
    charge.side_effect = [GatewayUnavailable("reset"), GatewayUnavailable("reset"), MagicMock(id="pi_1")]
    drain()
    order.refresh_from_db()
    assert (order.status, order.payment_id, order.processing_count) == ("completed", "pi_1", 1)
    assert OutboxMessage.objects.get(task="orders.tasks.process_order").attempts == 3
    assert {call.kwargs["idempotency_key"] for call in charge.call_args_list} == {f"order-{order.id}"}


def test_committed_intent_is_handed_to_the_next_attempt(shop: None, mocker: MockerFixture) -> None:
    quiet(mocker)
    place()
    seen: list[str] = []

    def charge(*_args: Any, payment_intent_id: str, on_created: Any, **_kwargs: Any) -> MagicMock:
        seen.append(payment_intent_id)
        if not payment_intent_id:
            on_created("pi_7")
            raise GatewayUnavailable("no answer to the confirmation")
        return MagicMock(id=payment_intent_id)

    mocker.patch("payments.gateway.PaymentGateway.charge", side_effect=charge)
    drain()
    assert seen == ["", "pi_7"]


@pytest.mark.parametrize(
    "error",
    [CircuitBreakerError(Breaker(name="test-gateway")), GatewayBusy("429"), GatewayBusy("429", 7.0)],
    ids=["circuit open", "busy", "busy with Retry-After"],
)
def test_not_now_is_deferred_and_spends_no_attempt(
    shop: None, charge: MagicMock, mocker: MockerFixture, error: Exception
) -> None:
    quiet(mocker)
    order = place()
    charge.side_effect = [error] * 20 + [MagicMock(id="pi_1")]
    drain()
    order.refresh_from_db()
    assert order.status == "completed"
    message = OutboxMessage.objects.get(task="orders.tasks.process_order")
    assert (message.attempts, message.generation) == (1, 21)


def test_charge_never_answered_is_a_dead_letter_to_replay(
    shop: None, charge: MagicMock, mocker: MockerFixture
) -> None:
    """The replay completes the order."""
    quiet(mocker)
    order = place()
    charge.side_effect = GatewayUnavailable("down")
    drain()
    message = OutboxMessage.objects.get(task="orders.tasks.process_order")
    assert (message.status, message.attempts) == ("dead", 13)
    charge.side_effect = None
    assert OrderService.process(order_id=order.id)["status"] == "completed"


@pytest.mark.parametrize("error", [InvalidRequest("no such parameter"), Order.DoesNotExist()])
def test_what_no_retry_can_mend_is_a_dead_letter_at_once(
    shop: None, charge: MagicMock, mocker: MockerFixture, error: Exception
) -> None:
    quiet(mocker)
    place()
    charge.side_effect = error
    drain()
    message = OutboxMessage.objects.get(task="orders.tasks.process_order")
    assert (message.status, message.attempts) == ("dead", 1)


def test_message_that_finds_the_order_held_waits_until_it_is_finished(
    shop: None, charge: MagicMock, mocker: MockerFixture
) -> None:
    quiet(mocker)
    order = place()
    held = lifecycle.claim(order_id=order.id, owner="somebody else")
    assert held is not None

    def finish(_order_id: int) -> float:
        lifecycle.complete(held, payment_id="pi_1")
        return 5.0

    waited = mocker.patch("orders.tasks.lease_left_s", side_effect=finish)
    drain()
    assert waited.call_count == 1
    assert charge.call_count == 0
    message = OutboxMessage.objects.get(task="orders.tasks.process_order")
    assert (message.status, message.attempts) == ("done", 1)


def test_owner_of_a_claim_is_the_message(shop: None, mocker: MockerFixture) -> None:
    quiet(mocker)
    order = place()
    owners: list[str] = []

    def charge(*_args: Any, **_kwargs: Any) -> MagicMock:
        owners.append(Order.objects.get(pk=order.id).lease_owner)
        return MagicMock(id="pi_1")

    mocker.patch("payments.gateway.PaymentGateway.charge", side_effect=charge)
    drain()
    message = OutboxMessage.objects.get(task="orders.tasks.process_order")
    assert [uuid.UUID(owner) for owner in owners] == [message.message_id]
