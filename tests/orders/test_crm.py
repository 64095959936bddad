"""Syncing an order to the CRM: what is retried, what waits for it, what is logged for a person."""

from datetime import timedelta
from typing import Any
from unittest.mock import MagicMock

import pytest
from celery import current_app
from celery.exceptions import SoftTimeLimitExceeded
from django.utils import timezone
from pytest_mock import MockerFixture

import outbox
from dlq import replay
from dlq.models import DeadLetter
from orders import crm
from orders.models import Order, SyncErrorLog
from orders.tasks import CRM_PATIENCE, notify_warehouse, sync_to_crm
from outbox.models import OutboxMessage
from outbox.relay.queries import requeue_abandoned
from outbox.testing import drain
from tests.lab.sandbox_fixture import RunningSandbox
from tests.orders.conftest import settle


class TestSyncingToTheCrm:
    @pytest.mark.described("`DataSyncWorker`: an unavailable service is tried again in 60 s")
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

    @pytest.mark.described("invalid data is a `SyncErrorLog`, and no error")
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

    @pytest.mark.described("any other error is raised")
    def test_unexpected_error_is_raised(self, completed: Order, mocker: MockerFixture) -> None:
        mocker.patch("orders.crm.SyncService.sync", side_effect=RuntimeError("Unexpected failure"))
        with pytest.raises(RuntimeError, match="Unexpected failure"):
            sync_to_crm(completed.id)

    @pytest.mark.described("it is retried after 1, 5 and 30 minutes, 2 and 8 hours")
    def test_unexpected_error_is_retried_by_the_schedule(
        self, completed: Order, mocker: MockerFixture
    ) -> None:
        mocker.patch("orders.crm.SyncService.sync", side_effect=RuntimeError("Unexpected failure"))
        message = settle(sync_to_crm, completed.id)
        assert (message.status, message.attempts) == ("dead", 6)
        task = current_app.tasks["orders.tasks.sync_to_crm"]
        assert task.retry_schedule == (60, 300, 1800, 7200, 28800)

    def test_crm_that_is_down_spends_no_attempt_of_other_errors(
        self, completed: Order, mocker: MockerFixture
    ) -> None:
        down = [crm.ServiceUnavailable("503"), SoftTimeLimitExceeded()] * 50
        odd = [RuntimeError("odd")] * 5
        mocker.patch("orders.crm.SyncService.sync", side_effect=[*down, *odd, *down, None])
        message = settle(sync_to_crm, completed.id)
        assert (message.status, message.attempts) == ("done", 6)

    @pytest.mark.parametrize(
        ("task", "setting"), [(sync_to_crm, "CRM_URL"), (notify_warehouse, "WAREHOUSE_URL")]
    )
    def test_address_that_is_not_set_is_a_dead_letter_at_once(
        self, completed: Order, settings: Any, task: Any, setting: str
    ) -> None:
        """The dead letter names the setting."""
        setattr(settings, setting, "")
        message = settle(task, completed.id)
        assert (message.status, message.attempts) == ("dead", 1)
        assert f"{setting} is not set" in message.errors[-1]["error"]

    def test_crm_that_is_down_for_days_is_a_dead_letter(
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
        killed = mocker.patch("outbox.transitions.settle", side_effect=KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            drain()
        assert SyncErrorLog.objects.count() == 1
        mocker.stop(killed)
        OutboxMessage.objects.update(lease_until=timezone.now() - timedelta(minutes=1))
        requeue_abandoned(worker_timeout_s=60, judge_workers=False)
        drain()
        assert OutboxMessage.objects.get(message_id=message_id).status == "done"
        assert SyncErrorLog.objects.count() == 1

    def test_crm_has_the_order_in_the_end(self, completed: Order, sandbox_settings: RunningSandbox) -> None:
        sandbox_settings.faults(crm={"error_rate": 0.5}, seed=3)
        assert settle(sync_to_crm, completed.id).status == "done"
        (record,) = sandbox_settings.ledger("crm", order_id=completed.id)
        assert record["record"]["status"] == "completed"

    @pytest.mark.parametrize("status", [400, 409, 413, 422])
    def test_data_that_the_crm_refuses_is_logged_with_its_reason(
        self, completed: Order, mocker: MockerFixture, status: int
    ) -> None:
        mocker.patch("requests.post", return_value=MagicMock(status_code=status, text="email is missing"))
        assert settle(sync_to_crm, completed.id).status == "done"
        assert SyncErrorLog.objects.get().error == "email is missing"

    @pytest.mark.parametrize("status", [401, 403, 404, 405, 410])
    def test_refusal_not_about_the_data_is_retried_then_dead_lettered(
        self, completed: Order, mocker: MockerFixture, status: int
    ) -> None:
        mocker.patch("requests.post", return_value=MagicMock(status_code=status, text="who are you?"))
        message = settle(sync_to_crm, completed.id)
        assert (message.status, message.attempts) == ("dead", 6)
        assert f"answered {status}: who are you?" in DeadLetter.objects.get().error
        assert not SyncErrorLog.objects.exists()

    def test_order_that_a_moved_crm_missed_is_there_after_its_replay(
        self, completed: Order, sandbox_settings: RunningSandbox, settings: Any
    ) -> None:
        new_home, settings.CRM_URL = settings.CRM_URL, f"{sandbox_settings.url}/moved"
        assert settle(sync_to_crm, completed.id).status == "dead"
        settings.CRM_URL = new_home
        replay.replay(DeadLetter.objects.get().pk, actor="operator")
        drain()
        assert len(sandbox_settings.ledger("crm", order_id=completed.id)) == 1

    @pytest.mark.parametrize("status", [500, 503, 302, 408])
    def test_answer_that_may_change_is_service_unavailable(
        self, completed: Order, mocker: MockerFixture, status: int
    ) -> None:
        mocker.patch("requests.post", return_value=MagicMock(status_code=status))
        with pytest.raises(crm.ServiceUnavailable):
            crm.SyncService.sync("order", completed.id)
