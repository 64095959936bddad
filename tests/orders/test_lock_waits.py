"""A row that somebody else has locked costs time, never the message."""

from __future__ import annotations

import threading
from typing import Any
from unittest.mock import MagicMock

import pytest
from celery import current_app
from celery.exceptions import SoftTimeLimitExceeded
from django.db import connection
from pytest_mock import MockerFixture

import outbox
from orders.services import OrderService
from orders.tasks import update_inventory
from outbox.models import OutboxMessage
from outbox.testing import clear, drain
from tests.orders.conftest import place, units
from tests.support import effects, tasks
from tests.support.database import another_session
from tests.support.locks import wait_until_blocked
from tests.support.messages import elsewhere
from tests.support.processes import await_

pytestmark = pytest.mark.django_db(transaction=True)


def test_every_lock_wait_is_shorter_than_any_soft_time_limit() -> None:
    """On every connection of the application."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT setting::int / 1000 FROM pg_settings WHERE name = 'lock_timeout'")
        (seconds,) = cursor.fetchone()
    limits = [
        task.soft_time_limit
        for name, task in current_app.tasks.items()
        if name.startswith(("orders.", "payments.", "webhooks.", "notifications."))
    ]
    assert 0 < seconds < min(limits)


@pytest.mark.promise(
    "P4", "a row stays locked by another session", "the run gives up and runs again; its effect happens once"
)
def test_a_task_without_its_lock_runs_again_with_one_effect(
    busy_shop: None, charge: MagicMock, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = place(quantity=2)
    OrderService.process(order_id=order.pk)
    clear()
    message_id = outbox.enqueue(update_inventory.s(order.pk))
    before = units()
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "options", "-c lock_timeout=300")
    connection.close()
    with another_session() as holder:
        holder.cursor().execute("SELECT FROM orders_product WHERE sku = 'WIDGET' FOR UPDATE")
        gave_up = threading.Event()

        def release() -> None:
            try:
                wait_until_blocked(1)
                waiting = blocked()
                await_(lambda: not waiting & blocked(), "the first wait for the lock has ended", timeout_s=10)
                gave_up.set()
            finally:
                connection.close()
                holder.rollback()

        thread = threading.Thread(target=release)
        thread.start()
        drain()
        thread.join(20)
    assert gave_up.is_set()
    message = OutboxMessage.objects.get(message_id=message_id)
    assert (message.status, message.attempts) == ("done", 1), message.errors
    assert units() == (before[0], before[1] - 2, before[2] + 2)


@pytest.mark.promise(
    "P4",
    "a lock of another session outlasts `max_deliveries` runs",
    "nothing is spent; it runs when the lock is free",
)
@pytest.mark.parametrize("task", [tasks.note, tasks.note_once])
@pytest.mark.usefixtures("clean")
def test_a_lock_held_for_many_runs_costs_a_message_nothing(
    task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For more runs than the message has deliveries."""
    message_id = outbox.enqueue(task.s("a"))
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "options", "-c lock_timeout=50")
    connection.close()
    with another_session() as holder:
        holder.cursor().execute("LOCK TABLE outbox_test_effect")
        many = task.max_deliveries + 1

        def release() -> None:
            try:
                messages = OutboxMessage.objects.filter(message_id=message_id)
                await_(lambda: len(messages.get().errors) >= many, f"it has run {many} times", timeout_s=10)
            finally:
                connection.close()
                holder.rollback()

        with elsewhere(release):
            drain()
    message = OutboxMessage.objects.get(message_id=message_id)
    assert (message.status, message.attempts) == ("done", 1), message.errors
    assert "SQLSTATE 55P03" in message.errors[-1]["error"]
    assert effects.names() == ["a"]


def blocked() -> set[int]:
    """The sessions that wait for a lock."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pid FROM pg_locks WHERE NOT granted")
        return {pid for (pid,) in cursor.fetchall()}


@pytest.mark.parametrize(
    ("task", "body"),
    [
        ("orders.tasks.update_inventory", "orders.effects.ship_stock"),
        ("orders.tasks.import_row", "orders.importer.import_row"),
        ("webhooks.tasks.publish_event", "webhooks.tasks.order_payload"),
    ],
)
def test_a_task_stopped_by_its_soft_limit_is_retried_first(
    mocker: MockerFixture, task: str, body: str
) -> None:
    """Before it is dead."""
    mocker.patch(body, side_effect=SoftTimeLimitExceeded)
    args = ["order.completed", 1] if task.endswith("publish_event") else [1]
    message_id = outbox.enqueue(current_app.tasks[task].s(*args))
    drain()
    message = OutboxMessage.objects.get(message_id=message_id)
    assert (message.status, message.attempts) == ("dead", 6)
