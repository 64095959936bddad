"""What follows from an order: each effect once, each failure retried, deferred, logged or dead as it
deserves.
"""

from typing import Any
from unittest.mock import MagicMock

import pytest
from celery import current_app
from circuitbreaker import CircuitBreakerError
from pytest_mock import MockerFixture

import outbox
from orders import effects
from orders.models import DailyTotals, Order
from orders.services import OrderService, cancel_order
from orders.tasks import (
    notify_warehouse,
    send_confirmation,
    send_receipt,
    track_analytics,
    update_inventory,
)
from outbox.testing import staged
from resilience.connection import get_redis
from tests.lab.sandbox_fixture import RunningSandbox
from tests.orders.conftest import place, settle, units


def test_an_email_outlasts_a_mail_server_down_for_hours(settings: Any, mocker: MockerFixture) -> None:
    """It is tried once an hour at least."""
    settings.RETRY_SCALE = 1.0
    mocker.patch("outbox.retry_policy.random.uniform", side_effect=lambda low, high: (low + high) / 2)
    for task in (send_confirmation, send_receipt):
        waits = [task.retry_policy().delay_s(retries) for retries in range(task.max_retries)]
        assert sum(waits) > 2 * 3600, "on average"
        assert 2 * max(waits) == 3600, "at most"


class TestCallingTheWarehouse:
    @pytest.mark.described(
        "`perform_with_fallback` returns `queued_for_retry` and `retry_after` while the circuit is open"
    )
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

    def test_message_above_the_warehouses_rate_is_deferred_without_a_call(
        self, completed: Order, mocker: MockerFixture
    ) -> None:
        """It spends no attempt."""
        call = mocker.patch("requests.post", return_value=MagicMock(status_code=200, json=dict))
        seconds, microseconds = get_redis().time()
        # Five tokens short: a tenth of a second without one.
        empty = {"tokens": "-5", "at": str(seconds * 1000 + microseconds / 1000)}
        get_redis().hset("ratelimit:warehouse", mapping=empty)
        message = settle(notify_warehouse, completed.id)
        assert (message.status, message.attempts, call.call_count) == ("done", 1, 1)
        assert message.generation > 1
        assert "rate limit of warehouse reached" in str(message.errors)

    def test_shipment_is_in_the_warehouse_once_whatever_it_answers(
        self, completed: Order, sandbox_settings: RunningSandbox
    ) -> None:
        sandbox_settings.faults(warehouse={"drop_reply_rate": 0.5}, seed=3)
        for _ in range(3):
            assert settle(notify_warehouse, completed.id).status == "done"
        (shipment,) = sandbox_settings.ledger("shipments", order_id=completed.id)
        assert shipment["items"] == [{"sku": "WIDGET", "quantity": 2}]

    @pytest.mark.described("jobs take ids and read fresh data")
    def test_cancelled_order_is_not_shipped(self, completed: Order, mocker: MockerFixture) -> None:
        call = mocker.patch("orders.warehouse.call_external_api")
        cancel_order(order_id=completed.id)
        assert notify_warehouse(completed.id)["status"] == "skipped"
        assert call.call_count == 0

    def test_units_reported_to_the_warehouse_do_not_return_to_stock(
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

    @pytest.mark.described(
        "a 429 is tried again after its `Retry-After`, or after 60 s (`RateLimitExceeded`)"
    )
    @pytest.mark.parametrize(("header", "wait_s"), [("7", 7.0), ("0", 1.0), (None, 0.6)])
    def test_429_defers_as_long_as_it_asks_or_a_minute(
        self, completed: Order, mocker: MockerFixture, settings: Any, header: str | None, wait_s: float
    ) -> None:
        settings.RETRY_SCALE = 0.01
        headers = {"Retry-After": header} if header else {}
        mocker.patch("requests.post", return_value=MagicMock(status_code=429, headers=headers))
        with pytest.raises(outbox.Defer) as deferred:
            notify_warehouse(completed.id)
        assert deferred.value.seconds == pytest.approx(wait_s)


class TestStock:
    def test_units_are_shipped_once_however_often_the_message_comes(self, completed: Order) -> None:
        stock, reserved, shipped = units()
        assert update_inventory(completed.id)["status"] == "shipped"
        assert update_inventory(completed.id)["status"] == "skipped"
        assert settle(update_inventory, completed.id).status == "done"
        assert units() == (stock, reserved - 2, shipped + 2)

    def test_mark_and_units_are_committed_together(
        self, busy_shop: None, charge: MagicMock, mocker: MockerFixture
    ) -> None:
        completed = place(quantity=2)
        OrderService.process(order_id=completed.id)
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

    @pytest.mark.described("upserts in place of inserts")
    def test_totals_of_several_orders_add_up(self, shop: None, charge: MagicMock) -> None:
        for _ in range(3):
            order = place()
            OrderService.process(order_id=order.id)
            effects.count_in_daily_totals(order_id=order.id)
        assert DailyTotals.objects.get().orders == 3

    @pytest.mark.described("at most once: a crash loses the job, and never repeats it")
    @pytest.mark.promise(
        "P3",
        "a worker is killed between an order's mark and its count",
        "the count is lost, and never made twice",
    )
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


@pytest.mark.described("the password reset is in the queue `high`, the CRM in `default`, the report in `low`")
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


@pytest.mark.described("`process_large_file` is asked to stop after 300 s and killed after 360 s")
def test_every_task_has_an_end_and_a_claim_outlives_it(db: None) -> None:
    for name, task in current_app.tasks.items():
        if name.startswith("orders.tasks."):
            assert 0 < task.soft_time_limit < task.time_limit < task.lease_s(), name
