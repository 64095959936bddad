"""A queue that the broker refuses is that queue's fault: the others go on, it is named, and it recovers by itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
import redis
from amqp.exceptions import PreconditionFailed
from django.conf import LazySettings, settings
from django.db import connection
from django.test import Client

import outbox
from config.celery import app
from config.queues import QUORUM, UNDELIVERABLE, is_rabbitmq
from monitoring.alerts import Alert, evaluate
from monitoring.snapshot import QueueMonitor
from outbox.models import OutboxMessage, UnusableQueue
from outbox.relay.loop import Relay
from outbox.testing import wait_until_settled
from resilience import circuits
from tests.support import effects, tasks
from tests.support.brokers import on_both_brokers, on_rabbitmq
from tests.support.processes import await_, relay, started

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clean")]

REASONS = {"redis": "WRONGTYPE", "rabbitmq": "PRECONDITION_FAILED - inequivalent arg"}


def reason() -> str:
    return REASONS["rabbitmq" if is_rabbitmq(settings.CELERY_BROKER_URL) else "redis"]


def on_amqp(*steps: Callable[..., object]) -> None:
    with app.connection_for_write() as broker:
        for step in steps:
            step(broker.default_channel)


def delete(queue: str) -> None:
    on_amqp(lambda channel: channel.queue_delete(queue))


def replaced_by_classic(queue: str) -> bool:
    with suppress(PreconditionFailed):
        on_amqp(
            lambda channel: channel.queue_delete(queue),
            lambda channel: channel.queue_declare(queue, durable=True, auto_delete=False),
        )
        return True
    return False


def spoil(queue: str = "low") -> None:
    """What is left of another installation has the queue's name."""
    if is_rabbitmq(settings.CELERY_BROKER_URL):
        # A relay that is at work declares what is deleted, and may be quicker.
        await_(lambda: replaced_by_classic(queue), "the queue is replaced")
    else:
        with redis.Redis.from_url(settings.CELERY_BROKER_URL) as client:
            client.set(queue, "x")


def repair(queue: str = "low") -> None:
    if is_rabbitmq(settings.CELERY_BROKER_URL):
        delete(queue)
    else:
        with redis.Redis.from_url(settings.CELERY_BROKER_URL) as client:
            client.delete(queue)


def statuses(queue: str) -> list[tuple[str, int]]:
    return sorted(OutboxMessage.objects.filter(queue=queue).values_list("status", "publish_count"))


def alert() -> Alert | None:
    firing = {alert.name: alert for alert in evaluate(QueueMonitor().snapshot())}
    return firing.get("queue_unusable")


def notes(count: int, queue: str, prefix: str = "") -> None:
    outbox.enqueue_many([tasks.note_once.s(f"{prefix}{queue}{n}") for n in range(count)], queue=queue)


@contextmanager
def relaying() -> Iterator[None]:
    """A relay in this process, with the settings of this process."""
    stop = threading.Event()

    def run() -> None:
        try:
            Relay(app).run(stop)
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


@on_both_brokers
def test_an_alert_names_it_and_the_others_are_published(
    client: Client,
) -> None:
    """It recovers when it is repaired."""
    spoil()
    notes(3, "low")
    notes(3, "critical")
    with relaying():
        await_(lambda: statuses("critical") == [("published", 1)] * 3, "the messages of the sound queue")
        await_(alert, "an alert")
        fired = alert()
        assert fired
        assert "low for " in fired.text
        assert reason() in fired.text
        assert 'holdfast_queue_unusable{queue="low"} 1.0' in client.get("/metrics").content.decode()
        assert client.get("/readyz").status_code == 200, "this process can do its work"
        notes(3, "critical", "again-")
        await_(lambda: statuses("critical") == [("published", 1)] * 6, "the sound queue, at its pace", 3)
        assert statuses("low") == [("pending", 0)] * 3, "an unusable queue spends nothing of its messages"
        repair()
        await_(lambda: statuses("low") == [("published", 1)] * 3, "the messages of the repaired queue")
        await_(lambda: not alert(), "the end of the alert")
    assert 'holdfast_queue_unusable{queue="low"} 0.0' in client.get("/metrics").content.decode()


@on_both_brokers
def test_a_queue_repaired_after_its_relay_ended_keeps_no_alert() -> None:
    """Not for ever: the next relay looks, even with nothing to publish."""
    notes(1, "low")
    with relaying():
        await_(lambda: statuses("low") == [("published", 1)], "a message")
        spoil()
        notes(1, "low", "next-")
        await_(alert, "an alert")
    repair()
    OutboxMessage.objects.all().delete()
    assert alert(), "no relay has looked"
    with relaying():
        await_(lambda: not alert(), "the end of the alert, though there is nothing to publish")


@on_both_brokers
def test_what_was_published_to_it_before_is_swept_when_it_is_repaired(settings: LazySettings) -> None:
    settings.OUTBOX_MARGIN = 0.5
    notes(3, "low")
    notes(1, "critical")
    with relaying():
        await_(lambda: statuses("low") == [("published", 1)] * 3, "the messages")
        spoil()
        await_(alert, "an alert")
        before = statuses("low")
        OutboxMessage.objects.filter(queue="critical").update(published_at="2020-01-01T00:00:00Z")
        repair_critical = OutboxMessage.objects.filter(queue="critical", publish_count__gt=1)
        spoil_critical()
        await_(repair_critical.exists, "the rescue of the sound queue")
        assert statuses("low") == before, "whether it lost them cannot be known"
        repair()
        await_(
            lambda: all(now > then for (_, now), (_, then) in zip(statuses("low"), before, strict=True)),
            "what was lost with the queue is published again",
        )


def spoil_critical() -> None:
    """Lose what is in `critical`."""
    if is_rabbitmq(settings.CELERY_BROKER_URL):
        on_amqp(lambda channel: channel.queue_purge("critical"))
    else:
        repair("critical")


@on_rabbitmq
def test_a_full_queue_spends_nothing_and_the_others_go_on() -> None:
    delete("low")
    full = {**QUORUM, "x-max-length": 1}
    app.amqp.queues["low"].queue_arguments = full
    try:
        notes(300, "low")
        notes(3, "critical")
        with relaying():
            await_(lambda: statuses("critical") == [("published", 1)] * 3, "the messages of the sound queue")
            await_(alert, "an alert")
            fired = alert()
            assert fired
            assert "(nack)" in fired.text
            await_(
                lambda: UnusableQueue.objects.get().seen_at > UnusableQueue.objects.get().since, "another try"
            )
        assert {count for status, count in statuses("low") if status == "pending"} == {0}
    finally:
        app.amqp.queues["low"].queue_arguments = QUORUM


@on_rabbitmq
def test_an_unusable_queue_for_dead_letters_stops_nothing() -> None:
    """An alert names it."""
    delete(UNDELIVERABLE)
    on_amqp(
        lambda channel: channel.queue_declare(
            UNDELIVERABLE, durable=True, auto_delete=False, arguments=QUORUM
        )
    )
    notes(3, "critical")
    with relaying():
        await_(lambda: statuses("critical") == [("published", 1)] * 3, "the messages")
        await_(alert, "an alert")
        fired = alert()
        assert fired
        assert UNDELIVERABLE in fired.text
        delete(UNDELIVERABLE)
        await_(lambda: not alert(), "the end of the alert")


def test_redis_without_permission_for_one_key_takes_the_others() -> None:
    with redis.Redis.from_url(settings.CELERY_BROKER_URL) as client:
        # The alerts read the open circuits there, too.
        keys = ["~critical", f"~{circuits.KEY}"]
        client.execute_command("ACL SETUSER", "default", "resetkeys", *keys)  # type: ignore[no-untyped-call]
        try:
            notes(3, "low")
            notes(3, "critical")
            with relaying():
                await_(lambda: statuses("critical") == [("published", 1)] * 3, "the messages")
                await_(alert, "an alert")
                client.execute_command("ACL SETUSER", "default", "allkeys")  # type: ignore[no-untyped-call]
                await_(lambda: statuses("low") == [("published", 1)] * 3, "the others, once it may")
        finally:
            client.execute_command("ACL SETUSER", "default", "allkeys")  # type: ignore[no-untyped-call]


@on_both_brokers
def test_a_worker_of_several_queues_goes_on_without_it() -> None:
    """It takes the queue up again when it is repaired."""
    spoil()
    arguments = ["-m", "celery", "-A", "config", "worker", "--loglevel", "INFO", "--queues", "low,critical"]
    options = ["--concurrency", "1", "--hostname", "w@test", "--without-gossip", "--without-mingle"]
    with relay(), started([*arguments, *options], ready=" ready.") as process:
        notes(3, "critical")
        notes(1, "low")
        await_(lambda: len(effects.names("critical")) == 3, "the work of the sound queue")
        assert process.output().count("Queue low is unusable") == 1
        assert reason() in process.output()
        repair()
        wait_until_settled(30)
        # Under a worker that reads it.
        spoil()
        notes(3, "critical", "again-")
        await_(lambda: len(effects.names("again-critical")) == 3, "the work of the sound queue")
        await_(lambda: process.output().count("Queue low is unusable") == 2, "it says so")
        repair()
        notes(1, "low", "again-")
        wait_until_settled(30)
        assert process.alive()
        assert process.output().count("Frequent restarts") == 0
    assert len(effects.names()) == 8
