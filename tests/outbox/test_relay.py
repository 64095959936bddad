"""The relay's passes: batches, the valve, refusals and outages."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import LazySettings
from django.core.management import CommandError, call_command

import outbox
from outbox.broker.publisher import BrokerUnavailable
from outbox.models import OutboxMessage
from outbox.relay.loop import MAX_REFUSALS
from outbox.retention import prune_once
from tests.support import tasks
from tests.support.chosen_broker import Broker, relay
from tests.support.processes import await_

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clean")]


def test_passes_go_on_past_one_batch_in_order_of_enqueueing() -> None:
    outbox.enqueue_many([tasks.note.s(f"{n}") for n in range(25)])
    broker = Broker()
    relaying = relay(broker, batch=10)
    assert [relaying.run_once() for _ in range(4)] == [10, 10, 5, 0]
    assert [message.args for message in broker.sent] == [f'["{n}"]' for n in range(25)]


@pytest.mark.parametrize("batch", ["-1", "0", "1000001", "9" * 20])
def test_a_batch_that_no_pass_can_mark_is_refused(batch: str) -> None:
    with pytest.raises(CommandError, match="--batch must be a number from 1 to 1000000"):
        call_command("outbox_relay", "--once", f"--batch={batch}")


def test_the_valve_keeps_the_backlog_on_disk_until_the_queue_drains(settings: LazySettings) -> None:
    settings.OUTBOX_DEPTH_LIMIT = 30
    outbox.enqueue_many([tasks.note.s(f"{n}") for n in range(100)])
    broker = Broker()
    relaying = relay(broker, batch=20)
    assert [relaying.run_once() for _ in range(4)] == [20, 10, 0, 0]
    broker.sent.clear()
    assert relaying.run_once() == 20


def test_a_full_queue_is_not_filled_up_one_message_at_a_time(settings: LazySettings) -> None:
    settings.OUTBOX_DEPTH_LIMIT = 200
    outbox.enqueue_many([tasks.note.s(f"{n}") for n in range(100)])
    broker = Broker()
    relaying = relay(broker, batch=50)
    moved = []
    for broker.depth in (200, 199, 196, 195):
        moved.append((relaying.run_once(), relaying._waits_for_room))
    assert moved == [(0, True), (0, True), (0, True), (5, False)]


def test_a_broker_that_is_down_costs_no_message_and_no_try() -> None:
    message_id = outbox.enqueue(tasks.note.s("a"))
    broker = Broker()
    broker.down = True
    for _ in range(MAX_REFUSALS + 3):
        with pytest.raises(BrokerUnavailable):
            relay(broker).run_once()
    message = OutboxMessage.objects.get(message_id=message_id)
    assert (message.status, message.publish_count, message.attempts) == ("pending", 0, 0)
    broker.down = False
    assert relay(broker).run_once() == 1


def test_a_message_that_a_healthy_broker_refuses_is_dead_lettered() -> None:
    """It does not block the rest."""
    bad = outbox.enqueue(tasks.note.s("a"))
    broker = Broker()
    broker.refuses = "unroutable"
    for _ in range(MAX_REFUSALS):
        relay(broker).run_once()
    message = OutboxMessage.objects.get(message_id=bad)
    assert message.status == "dead"
    assert message.errors[-1]["error"] == "Unpublishable: unroutable"
    broker.refuses = ""
    outbox.enqueue(tasks.note.s("b"))
    assert relay(broker).run_once() == 1


def test_a_delayed_message_is_published_when_its_time_has_come() -> None:
    outbox.enqueue(tasks.note.s("a"), delay=0.3)
    broker = Broker()
    assert relay(broker).run_once() == 0
    await_(lambda: relay(broker).run_once() == 1, "the delayed message is published")


def test_retention_deletes_old_settled_messages_in_batches_and_nothing_else() -> None:
    outbox.enqueue_many([tasks.note.s(f"{n}") for n in range(12)])
    ids: list[Any] = list(OutboxMessage.objects.order_by("id").values_list("id", flat=True))
    old = "2020-01-01T00:00:00Z"
    OutboxMessage.objects.filter(id__in=ids[:8]).update(status="done", done_at=old)
    OutboxMessage.objects.filter(id=ids[8]).update(status="dead", done_at=old)
    OutboxMessage.objects.filter(id=ids[9]).update(status="cancelled", done_at=old)
    OutboxMessage.objects.filter(id=ids[10]).update(status="done", done_at="2090-01-01T00:00:00Z")
    assert [prune_once(older_than_s=3600, batch=5) for _ in range(3)] == [5, 4, 0]
    assert set(OutboxMessage.objects.values_list("id", flat=True)) == {ids[8], ids[10], ids[11]}
