"""The relay's passes: batches, the valve, the idle declaration, refusals and outages."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from celery import current_app
from django.conf import LazySettings
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from pytest_mock import MockerFixture

import outbox
from outbox import groups
from outbox.broker.envelope import Outgoing
from outbox.broker.publisher import BrokerUnavailable, Publisher
from outbox.models import OutboxMessage, RelayProcess
from outbox.relay.loop import MANY_WAKES, MAX_REFUSALS, Relay, _notified
from outbox.retention import prune_once
from tests.support import tasks
from tests.support.processes import await_

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clean")]


class Broker(Publisher):
    """A broker whose answers the test chooses; what really reaches a broker is tested in test_transport."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []
        self.down = False
        self.tries = 0
        self.refuses = ""
        self.depth = 0
        self.unusable: dict[str, str] = {}

    def publish(self, batch: Sequence[Outgoing]) -> dict[int, str]:
        self.tries += 1
        if self.down:
            raise BrokerUnavailable("connection refused")
        self.sent.extend(batch)
        return {message.id: self.refuses for message in batch} if self.refuses else {}

    def depths(self, queues: Sequence[str]) -> dict[str, int]:
        return dict.fromkeys(queues, self.depth + len(self.sent))

    def close(self) -> None: ...


def relay(broker: Broker, batch: int = 500) -> Relay:
    return Relay(current_app._get_current_object(), publisher=broker, batch=batch)


def count(status: str) -> int:
    return OutboxMessage.objects.filter(status=status).count()


def test_passes_go_on_past_one_batch_in_order_of_enqueueing() -> None:
    outbox.enqueue_many([tasks.note.s(f"{n}") for n in range(25)])
    broker = Broker()
    relaying = relay(broker, batch=10)
    assert [relaying.run_once() for _ in range(4)] == [10, 10, 5, 0]
    assert [message.args for message in broker.sent] == [f'["{n}"]' for n in range(25)]


@pytest.mark.parametrize("batch", ["-1", "0", "1000001", "9" * 20])
def test_a_batch_that_no_pass_can_mark_is_an_error_of_the_arguments(batch: str) -> None:
    with pytest.raises(CommandError, match="--batch must be a number from 1 to 1000000"):
        call_command("outbox_relay", "--once", f"--batch={batch}")


def test_the_valve_keeps_the_backlog_on_disk_and_opens_as_the_queue_drains(settings: LazySettings) -> None:
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


def test_a_message_that_a_healthy_broker_refuses_is_buried_and_does_not_block_the_rest() -> None:
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


def test_an_idle_relay_is_woken_by_the_commit_and_a_busy_one_is_not_notified() -> None:
    broker, stop = Broker(), threading.Event()
    relaying = relay(broker)

    def run() -> None:
        relaying.run(stop)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        latencies = []
        for n in range(20):
            await_(lambda: RelayProcess.objects.filter(idle=True).exists(), "the relay is idle")
            began = time.monotonic()
            outbox.enqueue(tasks.note.s(f"{n}"))
            await_(lambda n=n: len(broker.sent) > n, "the message is published")  # type: ignore[misc]
            latencies.append(time.monotonic() - began)
    finally:
        stop.set()
        thread.join(10)
    assert sorted(latencies)[10] < 0.25, "polling would take half a second on average"
    assert not RelayProcess.objects.exists(), "a relay that ends in order leaves no row"
    with connection.cursor() as cursor, transaction.atomic():
        cursor.execute("LISTEN outbox")
        outbox.enqueue(tasks.note.s("no relay is idle"))
    assert not _notified(0.0)


def test_a_woken_relay_publishes_before_it_says_that_it_is_busy() -> None:
    broker, stop, idle_at_publish = Broker(), threading.Event(), []
    send = broker.publish

    def publish(batch: Sequence[Outgoing]) -> dict[int, str]:
        idle_at_publish.append(RelayProcess.objects.filter(idle=True).exists())
        return send(batch)

    broker.publish = publish  # type: ignore[method-assign]
    thread = threading.Thread(target=relay(broker).run, args=(stop,))
    thread.start()
    try:
        await_(lambda: RelayProcess.objects.filter(idle=True).exists(), "the relay is idle")
        outbox.enqueue(tasks.note.s("first"))
        await_(lambda: idle_at_publish, "the message is published")
    finally:
        stop.set()
        thread.join()
    assert idle_at_publish == [True]


def test_an_idle_relay_that_finds_no_room_says_that_it_is_busy() -> None:
    broker, stop = Broker(), threading.Event()
    broker.depth = 1_000_000
    thread = threading.Thread(target=relay(broker).run, args=(stop,))
    thread.start()
    try:
        await_(lambda: RelayProcess.objects.filter(idle=True).exists(), "the relay is idle")
        outbox.enqueue(tasks.note.s("no room"))
        await_(lambda: not RelayProcess.objects.filter(idle=True).exists(), "the relay waits for room")
    finally:
        stop.set()
        thread.join()


def test_a_relay_that_comes_back_from_an_outage_to_a_backlog_says_that_it_is_busy() -> None:
    broker, stop = Broker(), threading.Event()
    thread = threading.Thread(target=relay(broker).run, args=(stop,))
    thread.start()
    try:
        await_(lambda: RelayProcess.objects.filter(idle=True).exists(), "the relay is idle")
        broker.down = True
        outbox.enqueue(tasks.note.s("during the outage"))
        await_(lambda: count("pending") == 1 and broker.tries > 1, "the outage is noticed")
        broker.depth, broker.down = 1_000_000, False
        await_(lambda: not RelayProcess.objects.filter(idle=True).exists(), "the relay waits for room")
    finally:
        stop.set()
        thread.join()


def test_the_pass_after_the_declaration_looks_for_heads_however_lately_one_has_looked() -> None:
    broker = Broker()
    relaying = relay(broker)
    relaying._heads_at = time.monotonic() + 3600
    outbox.enqueue(tasks.note.s("head"), ordering_key="group")
    assert relaying.run_once() == 0
    relaying._sleep(0)
    assert RelayProcess.objects.filter(idle=True).exists()
    assert relaying.run_once() == 1
    relaying._leave()


def test_a_listening_relay_looks_for_heads_when_a_message_of_a_group_was_committed_and_not_for_others(
    monkeypatch: pytest.MonkeyPatch, mocker: MockerFixture
) -> None:
    for name in ("POLL_S", "RESCUE_EVERY_S"):
        monkeypatch.setattr(f"outbox.relay.loop.{name}", 60.0)
    looked = mocker.spy(groups, "promote_heads")
    broker, stop = Broker(), threading.Event()
    thread = threading.Thread(target=relay(broker).run, args=(stop,))
    thread.start()

    def publish(*signatures: Any, **options: Any) -> None:
        before = len(broker.sent)
        outbox.enqueue_many(signatures, **options)
        await_(lambda: len(broker.sent) > before, "a message is published")

    try:
        await_(lambda: RelayProcess.objects.filter(idle=True).exists(), "the relay is idle")
        publish(tasks.note.s("head"), tasks.note.s("waits for it"), ordering_key="one")
        publish(tasks.note.s("head"), ordering_key="another")
        looks = looked.call_count
        for n in range(3):
            publish(tasks.note.s(f"{n}"))
    finally:
        stop.set()
        outbox.enqueue(tasks.note.s("ends the relay's wait"))
        thread.join()
    assert looked.call_count == looks


def noting(relaying: Relay) -> list[bool]:
    """What this relay declares from now on: whether it is idle."""
    declared: list[bool] = []
    declare = relaying._declare

    def note(*, idle: bool) -> None:
        declared.append(idle)
        declare(idle=idle)

    relaying._declare = note  # type: ignore[method-assign]
    return declared


def test_a_relay_goes_on_listening_while_messages_come_one_by_one() -> None:
    broker, stop = Broker(), threading.Event()
    relaying = relay(broker)
    declared = noting(relaying)
    thread = threading.Thread(target=relaying.run, args=(stop,))
    thread.start()
    try:
        await_(lambda: RelayProcess.objects.filter(idle=True).exists(), "the relay is idle")
        for n in range(5):
            outbox.enqueue(tasks.note.s(f"{n}"))
            await_(lambda n=n: len(broker.sent) > n, "the message is published")  # type: ignore[misc]
    finally:
        stop.set()
        thread.join()
    assert declared == [True]


def test_a_relay_that_many_commits_wake_between_two_passes_says_that_it_is_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("outbox.relay.loop.LINGER_S", 10.0)
    broker, stop, begun, go_on = Broker(), threading.Event(), threading.Event(), threading.Event()
    relaying = relay(broker)
    declared = noting(relaying)
    send = broker.publish

    def publish(batch: Sequence[Outgoing]) -> dict[int, str]:
        begun.set()
        assert go_on.wait(20)
        return send(batch)

    broker.publish = publish  # type: ignore[method-assign]
    thread = threading.Thread(target=relaying.run, args=(stop,))
    thread.start()
    try:
        await_(lambda: RelayProcess.objects.filter(idle=True).exists(), "the relay is idle")
        outbox.enqueue(tasks.note.s("first"))
        assert begun.wait(20)
        for n in range(MANY_WAKES + 1):
            outbox.enqueue(tasks.note.s(f"{n}"))
        go_on.set()
        await_(lambda: not RelayProcess.objects.filter(idle=True).exists(), "the relay is busy")
        outbox.enqueue(tasks.note.s("last"))
        await_(lambda: len(broker.sent) == MANY_WAKES + 3, "the messages are published")
    finally:
        go_on.set()
        stop.set()
        thread.join()
    assert declared == [True, False]


def test_a_relay_that_has_filled_up_a_queue_looks_for_the_rest_before_the_next_poll(
    settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("POLL_S", "RESCUE_EVERY_S"):
        monkeypatch.setattr(f"outbox.relay.loop.{name}", 60.0)
    settings.OUTBOX_DEPTH_LIMIT = 20
    broker, stop = Broker(), threading.Event()
    broker.depth = 10
    thread = threading.Thread(target=relay(broker).run, args=(stop,))
    thread.start()
    try:
        await_(lambda: RelayProcess.objects.filter(idle=True).exists(), "the relay is idle")
        outbox.enqueue_many([tasks.note.s(f"{n}") for n in range(15)])
        await_(lambda: len(broker.sent) == 10, "the queue is filled up")
        broker.depth = 0
        await_(lambda: len(broker.sent) == 15, "the rest is published")
    finally:
        stop.set()
        outbox.enqueue(tasks.note.s("ends the relay's wait"))
        thread.join()


def test_a_relay_that_waits_for_room_is_no_burden_for_those_who_commit(settings: LazySettings) -> None:
    settings.OUTBOX_DEPTH_LIMIT = 1
    broker, stop = Broker(), threading.Event()
    broker.depth = 1
    passes = []
    broker.keep_alive = lambda: passes.append(1)  # type: ignore[method-assign]
    outbox.enqueue(tasks.note.s("backlog"))
    thread = threading.Thread(target=relay(broker).run, args=(stop,))
    thread.start()
    try:
        await_(lambda: len(passes) > 3, "passes before the closed valve")
        assert not RelayProcess.objects.filter(idle=True).exists(), "each commit would send it a NOTIFY"
        broker.depth = 0
        await_(lambda: broker.sent, "the message, once there is room")
    finally:
        stop.set()
        thread.join()


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
