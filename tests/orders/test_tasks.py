"""What follows from an order: each effect once, each failure retried, deferred, logged or dead as it
deserves.
"""

from datetime import timedelta
from typing import Any
from unittest.mock import MagicMock

import pytest
from celery import current_app
from celery.exceptions import SoftTimeLimitExceeded
from circuitbreaker import CircuitBreakerError
from django.utils import timezone
from pytest_mock import MockerFixture

import outbox
from orders import crm, effects
from orders.models import DailyTotals, Order, SyncErrorLog
from orders.services import OrderService, cancel_order
from orders.tasks import (
    CRM_PATIENCE,
    notify_warehouse,
    send_confirmation,
    send_receipt,
    sync_to_crm,
    track_analytics,
    update_inventory,
)
from outbox.dispatch import offer_abandoned
from outbox.models import OutboxMessage
from outbox.testing import clear, drain, staged
from tests.lab.sandbox_fixture import RunningSandbox
from tests.orders.conftest import place, units


@pytest.fixture
def completed(shop: None, charge: MagicMock) -> Order:
    """An order that was just completed; nothing that follows from it is staged."""
    order = place(quantity=2)
    OrderService.process(order_id=order.id)
    clear()
    return Order.objects.get(pk=order.id)


def settle(task: Any, *args: Any) -> OutboxMessage:
    """Enqueue the task and run it, retries included, to its end."""
    message_id = outbox.enqueue(task.s(*args))
    drain()
    return OutboxMessage.objects.get(message_id=message_id)


def test_a_mail_outlasts_a_mail_server_that_is_away_for_hours_and_is_tried_once_an_hour_at_least(
    settings: Any, mocker: MockerFixture
) -> None:
    settings.RETRY_SCALE = 1.0
    mocker.patch("outbox.task.random.uniform", side_effect=lambda low, high: (low + high) / 2)
    for task in (send_confirmation, send_receipt):
        waits = [task.retry_delay_s(retries) for retries in range(task.max_retries)]
        assert sum(waits) > 2 * 3600, "on average"
        assert 2 * max(waits) == 3600, "at most"


class TestCallingTheWarehouse:
    def test_job_that_meets_an_open_circuit_falls_back(self, completed: Order, mocker: MockerFixture) -> None:
        mocker.patch(
            "orders.warehouse.call_external_api", side_effect=CircuitBreakerError("API circuit open")
        )
        result = notify_warehouse(completed.id)
        assert result["status"] == "queued_for_retry"
        assert result["retry_after"] is not None

    def test_what_it_says_is_queued_is_queued(self, completed: Order, mocker: MockerFixture) -> None:
        mocker.patch(
            "orders.warehouse.call_external_api", side_effect=CircuitBreakerError("API circuit open")
        )
        notify_warehouse(completed.id)
        (message,) = staged("orders.tasks.notify_warehouse")
        assert (message.args, message.status) == ([completed.id], "scheduled")
        assert message.correlation_id == f"order-{completed.id}"

    def test_message_that_meets_an_open_circuit_comes_back_and_spends_no_attempt(
        self, completed: Order, mocker: MockerFixture
    ) -> None:
        refused = [CircuitBreakerError("API circuit open")] * 20
        mocker.patch("orders.warehouse.call_external_api", side_effect=[*refused, {"id": 1}])
        message = settle(notify_warehouse, completed.id)
        assert (message.status, message.attempts) == ("done", 1)

    def test_shipment_is_in_the_warehouse_once_whatever_it_answers(
        self, completed: Order, sandbox_settings: RunningSandbox
    ) -> None:
        sandbox_settings.faults(warehouse={"drop_reply_rate": 0.5}, seed=3)
        for _ in range(3):
            assert settle(notify_warehouse, completed.id).status == "done"
        (shipment,) = sandbox_settings.ledger("shipments", order_id=completed.id)
        assert shipment["items"] == [{"sku": "WIDGET", "quantity": 2}]

    def test_cancelled_order_is_not_shipped(self, completed: Order, mocker: MockerFixture) -> None:
        call = mocker.patch("orders.warehouse.call_external_api")
        cancel_order(order_id=completed.id)
        assert notify_warehouse(completed.id)["status"] == "skipped"
        assert call.call_count == 0

    def test_units_that_the_warehouse_was_told_of_do_not_return_to_the_shelf(
        self, completed: Order, mocker: MockerFixture
    ) -> None:
        stock, reserved, shipped = units()

        def cancelled_meanwhile(*_args: Any, **_kwargs: Any) -> dict[str, int]:
            cancel_order(order_id=completed.id)
            return {"id": 1}

        mocker.patch("orders.warehouse.call_external_api", side_effect=cancelled_meanwhile)
        assert notify_warehouse(completed.id)["status"] == "notified"
        assert update_inventory(completed.id)["status"] == "skipped"
        assert units() == (stock, reserved - 2, shipped + 2)

    def test_refusal_is_a_dead_letter_at_once(self, completed: Order, mocker: MockerFixture) -> None:
        mocker.patch("requests.post", return_value=MagicMock(status_code=422, text="no such SKU"))
        message = settle(notify_warehouse, completed.id)
        assert (message.status, message.attempts) == ("dead", 1)
        assert "no such SKU" in str(message.errors)

    @pytest.mark.parametrize(("header", "wait_s"), [("7", 7.0), ("0", 1.0), (None, 0.6)])
    def test_429_is_deferred_for_as_long_as_it_asks_else_for_a_minute(
        self, completed: Order, mocker: MockerFixture, settings: Any, header: str | None, wait_s: float
    ) -> None:
        settings.RETRY_SCALE = 0.01
        headers = {"Retry-After": header} if header else {}
        mocker.patch("requests.post", return_value=MagicMock(status_code=429, headers=headers))
        with pytest.raises(outbox.Defer) as deferred:
            notify_warehouse(completed.id)
        assert deferred.value.seconds == pytest.approx(wait_s)


class TestSyncingToTheCrm:
    def test_service_unavailable_is_retried_in_60_seconds(
        self, completed: Order, mocker: MockerFixture, settings: Any
    ) -> None:
        settings.RETRY_SCALE = 1.0
        mocker.patch(
            "orders.crm.SyncService.sync", side_effect=crm.ServiceUnavailable("503 Service Unavailable")
        )
        retry = mocker.patch.object(current_app.tasks["orders.tasks.sync_to_crm"], "retry")
        sync_to_crm(completed.id)
        assert retry.call_args.kwargs["countdown"] == 60

    def test_invalid_data_is_logged_and_not_raised(self, completed: Order, mocker: MockerFixture) -> None:
        mocker.patch(
            "orders.crm.SyncService.sync", side_effect=crm.InvalidDataError("Missing required field")
        )
        sync_to_crm(completed.id)
        log = SyncErrorLog.objects.latest("id")
        assert (log.entity_type, log.entity_id, log.error) == (
            "order",
            completed.id,
            "Missing required field",
        )

    def test_unexpected_error_is_raised(self, completed: Order, mocker: MockerFixture) -> None:
        mocker.patch("orders.crm.SyncService.sync", side_effect=RuntimeError("Unexpected failure"))
        with pytest.raises(RuntimeError, match="Unexpected failure"):
            sync_to_crm(completed.id)

    def test_unexpected_error_is_retried_by_the_schedule(
        self, completed: Order, mocker: MockerFixture
    ) -> None:
        mocker.patch("orders.crm.SyncService.sync", side_effect=RuntimeError("Unexpected failure"))
        message = settle(sync_to_crm, completed.id)
        assert (message.status, message.attempts) == ("dead", 6)
        task = current_app.tasks["orders.tasks.sync_to_crm"]
        assert task.retry_schedule == (60, 300, 1800, 7200, 28800)

    def test_crm_that_is_away_spends_none_of_the_attempts_that_other_errors_have(
        self, completed: Order, mocker: MockerFixture
    ) -> None:
        away = [crm.ServiceUnavailable("503"), SoftTimeLimitExceeded()] * 50
        odd = [RuntimeError("odd")] * 5
        mocker.patch("orders.crm.SyncService.sync", side_effect=[*away, *odd, *away, None])
        message = settle(sync_to_crm, completed.id)
        assert (message.status, message.attempts) == ("done", 6)

    def test_crm_that_is_away_for_days_is_a_dead_letter(
        self, completed: Order, mocker: MockerFixture
    ) -> None:
        Order.objects.update(completed_at=timezone.now() - CRM_PATIENCE - timedelta(minutes=1))
        mocker.patch("orders.crm.SyncService.sync", side_effect=crm.ServiceUnavailable("503"))
        assert settle(sync_to_crm, completed.id).status == "dead"

    def test_refusal_is_logged_once_though_its_run_dies_before_it_is_settled(
        self, completed: Order, mocker: MockerFixture
    ) -> None:
        mocker.patch("orders.crm.SyncService.sync", side_effect=crm.InvalidDataError("Missing name"))
        message_id = outbox.enqueue(sync_to_crm.s(completed.id))
        killed = mocker.patch("outbox.journal.settle", side_effect=KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            drain()
        assert SyncErrorLog.objects.count() == 1
        mocker.stop(killed)
        OutboxMessage.objects.update(lease_until=timezone.now() - timedelta(minutes=1))
        offer_abandoned(worker_timeout_s=60, judge_workers=False)
        drain()
        assert OutboxMessage.objects.get(message_id=message_id).status == "done"
        assert SyncErrorLog.objects.count() == 1

    def test_crm_has_the_order_in_the_end(self, completed: Order, sandbox_settings: RunningSandbox) -> None:
        sandbox_settings.faults(crm={"error_rate": 0.5}, seed=3)
        assert settle(sync_to_crm, completed.id).status == "done"
        (record,) = sandbox_settings.ledger("crm", order_id=completed.id)
        assert record["record"]["status"] == "completed"

    def test_data_that_the_crm_refuses_is_logged_with_its_reason(
        self, completed: Order, mocker: MockerFixture
    ) -> None:
        mocker.patch("requests.post", return_value=MagicMock(status_code=422, text="email is missing"))
        assert settle(sync_to_crm, completed.id).status == "done"
        assert SyncErrorLog.objects.get().error == "email is missing"

    @pytest.mark.parametrize("status", [500, 503, 302, 408])
    def test_answer_that_may_change_is_service_unavailable(
        self, completed: Order, mocker: MockerFixture, status: int
    ) -> None:
        mocker.patch("requests.post", return_value=MagicMock(status_code=status))
        with pytest.raises(crm.ServiceUnavailable):
            crm.SyncService.sync("order", completed.id)


class TestStock:
    def test_units_are_shipped_once_however_often_the_message_comes(self, completed: Order) -> None:
        stock, reserved, shipped = units()
        assert update_inventory(completed.id)["status"] == "shipped"
        assert update_inventory(completed.id)["status"] == "skipped"
        assert settle(update_inventory, completed.id).status == "done"
        assert units() == (stock, reserved - 2, shipped + 2)

    def test_mark_and_units_are_committed_together(self, completed: Order, mocker: MockerFixture) -> None:
        before = units()
        ship = mocker.patch("orders.stock.ship", side_effect=RuntimeError)
        with pytest.raises(RuntimeError):
            update_inventory(completed.id)
        completed.refresh_from_db()
        assert completed.stock_shipped_at is None
        mocker.stop(ship)
        assert update_inventory(completed.id)["status"] == "shipped"
        assert units() == (before[0], before[1] - 2, before[2] + 2)

    def test_order_that_is_not_completed_is_not_shipped(self, shop: None) -> None:
        order = place()
        before = units()
        assert update_inventory(order.id)["status"] == "skipped"
        assert units() == before


class TestAnalytics:
    def test_order_is_counted_in_its_days_totals(self, completed: Order) -> None:
        assert track_analytics(completed.id)["status"] == "counted"
        assert track_analytics(completed.id)["status"] == "skipped"
        totals = DailyTotals.objects.get()
        assert (totals.orders, totals.revenue_cents, totals.currency) == (1, completed.total_cents, "usd")
        assert completed.completed_at is not None
        assert totals.date == completed.completed_at.date()

    def test_totals_of_several_orders_add_up(self, shop: None, charge: MagicMock) -> None:
        for _ in range(3):
            order = place()
            OrderService.process(order_id=order.id)
            effects.count_in_daily_totals(order_id=order.id)
        assert DailyTotals.objects.get().orders == 3

    def test_crash_between_mark_and_count_loses_the_count_for_good(
        self, completed: Order, mocker: MockerFixture
    ) -> None:
        """At most once, on purpose: what a retry would repair is what a second delivery would repeat."""
        crash = mocker.patch("orders.effects.add_to_totals", side_effect=KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            track_analytics(completed.id)
        mocker.stop(crash)
        assert track_analytics(completed.id)["status"] == "skipped"
        assert not DailyTotals.objects.exists()


class TestMails:
    def test_confirmation_and_receipt_are_each_one_mail_per_order(
        self, completed: Order, sandbox_settings: RunningSandbox
    ) -> None:
        for _ in range(2):
            assert settle(send_confirmation, completed.id).status == "done"
            assert settle(send_receipt, completed.id).status == "done"
        mails = sandbox_settings.ledger("mail")
        assert sorted(mail["message_id"].strip("<").split("@")[0] for mail in mails) == [
            f"confirmation-order-{completed.id}",
            f"receipt-order-{completed.id}",
        ]

    def test_cancelled_order_that_was_paid_gets_its_receipt(
        self, completed: Order, mocker: MockerFixture
    ) -> None:
        send = mocker.patch("notifications.services.EmailService.send_receipt")
        cancel_order(order_id=completed.id)
        send_receipt(completed.id)
        assert send.call_count == 1


@pytest.mark.parametrize(
    ("task", "queue"),
    [
        ("process_order", "critical"),
        ("send_confirmation", "high"),
        ("send_receipt", "high"),
        ("update_inventory", "default"),
        ("notify_warehouse", "default"),
        ("sync_to_crm", "default"),
        ("track_analytics", "low"),
        ("process_large_file", "low"),
        ("import_row", "low"),
        ("generate_report", "low"),
    ],
)
def test_task_is_enqueued_to_its_queue_with_its_arguments(db: None, task: str, queue: str) -> None:
    current_app.tasks[f"orders.tasks.{task}"].delay(42)
    (message,) = staged()
    assert (message.task, message.queue, message.args) == (f"orders.tasks.{task}", queue, [42])


def test_every_task_has_an_end_and_a_claim_outlives_it(db: None) -> None:
    for name, task in current_app.tasks.items():
        if name.startswith("orders.tasks."):
            assert 0 < task.soft_time_limit < task.time_limit < task.lease_s(), name
