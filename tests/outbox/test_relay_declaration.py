"""A relay that is idle says so and is woken by a commit; a busy one costs no commit a NOTIFY."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import connection, transaction
from pytest_mock import MockerFixture

import outbox
from outbox import groups
from outbox.broker.envelope import Outgoing
from outbox.models import OutboxMessage, RelayProcess
from outbox.prepared import one
from outbox.relay.declaration import notified
from outbox.relay.loop import MANY_WAKES, Relay
from tests.support import tasks
from tests.support.chosen_broker import Broker, relay
from tests.support.processes import await_

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clean")]


def test_a_commit_wakes_an_idle_relay_and_notifies_no_busy_one() -> None:
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
    assert not notified(0.0)


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


def test_a_relay_with_a_backlog_after_an_outage_is_busy() -> None:
    broker, stop = Broker(), threading.Event()
    thread = threading.Thread(target=relay(broker).run, args=(stop,))
    thread.start()
    try:
        await_(lambda: RelayProcess.objects.filter(idle=True).exists(), "the relay is idle")
        broker.down = True
        outbox.enqueue(tasks.note.s("during the outage"))
        await_(
            lambda: OutboxMessage.objects.filter(status="pending").count() == 1 and broker.tries > 1,
            "the outage is noticed",
        )
        broker.depth, broker.down = 1_000_000, False
        await_(lambda: not RelayProcess.objects.filter(idle=True).exists(), "the relay waits for room")
    finally:
        stop.set()
        thread.join()


def test_the_pass_after_the_declaration_looks_for_heads() -> None:
    """However lately one has looked."""
    broker = Broker()
    relaying = relay(broker)
    relaying._heads_at = time.monotonic() + 3600
    outbox.enqueue(tasks.note.s("head"), ordering_key="group")
    assert relaying.run_once() == 0
    relaying._rest(0, threading.Event(), until=0.0)
    assert RelayProcess.objects.filter(idle=True).exists()
    assert relaying.run_once() == 1
    relaying._leave()


def test_a_listening_relay_looks_for_heads_after_commits_of_groups(
    monkeypatch: pytest.MonkeyPatch, mocker: MockerFixture
) -> None:
    """And not after other commits."""
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
    declare = relaying._declaration.declare

    def note(*, idle: bool) -> None:
        declared.append(idle)
        declare(idle=idle)

    relaying._declaration.declare = note  # type: ignore[method-assign]
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


def test_a_relay_that_many_commits_wake_says_that_it_is_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between two passes."""
    monkeypatch.setattr("outbox.relay.loop.LINGER_S", 10.0)
    broker, stop, begun, go_on = Broker(), threading.Event(), threading.Event(), threading.Event()
    relaying = relay(broker)
    declared = noting(relaying)
    send = broker.publish

    def publish(batch: Sequence[Outgoing]) -> dict[int, str]:
        begun.set()
        assert go_on.wait(20)
        # With this answer every NOTIFY of the commits before it has arrived; else the relay may hear of them by and by.
        one("SELECT 1")
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


def test_a_relay_that_filled_a_queue_looks_before_the_next_poll(
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


def test_a_relay_that_waits_for_room_costs_no_commit_a_notify(settings: LazySettings) -> None:
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
