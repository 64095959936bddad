"""What RabbitMQ does to messages, connections and workers, and what keeps every promise through it."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import outbox
from config.celery import app
from lab.stack.rabbitmq import RabbitMQ
from outbox.broker.publisher import BrokerUnavailable
from outbox.broker.rabbitmq import AmqpPublisher
from outbox.models import OutboxMessage
from outbox.relay.loop import Relay
from outbox.testing import wait_until_settled
from tests.support import effects, tasks
from tests.support.brokers import on_rabbitmq
from tests.support.processes import await_, relay, worker

pytestmark = [on_rabbitmq, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clean")]

QUICK = {"OUTBOX_MARGIN": "1", "OUTBOX_WORKER_TIMEOUT": "3"}


def count(status: str) -> int:
    return OutboxMessage.objects.filter(status=status).count()


def ready() -> int:
    publisher = AmqpPublisher(app)
    try:
        return publisher.depths(["default"])["default"]
    finally:
        publisher.close()


@contextmanager
def relay_here(batch: int) -> Iterator[Relay]:
    """A relay whose passes the test makes; it is connected."""
    relaying = Relay(app, batch=batch)
    relaying._publisher.depths(["default"])
    try:
        yield relaying
    finally:
        relaying._publisher.close()


def publish_all(relaying: Relay) -> None:
    while relaying.run_once():
        pass


def warnings(output: str) -> list[str]:
    return [line for line in output.splitlines() if re.search(r"WARN|ERROR|CRITICAL|Traceback", line)]


def test_a_worker_takes_one_message_per_process_without_warnings() -> None:
    outbox.enqueue_many([tasks.slow.s(f"m{n}", 1) for n in range(4)])
    with relay() as relaying, worker(concurrency=1) as process:
        await_(lambda: effects.count("m0-begun"), "the first runs")
        assert ready() == 3
        wait_until_settled(60)
        assert warnings(process.output()) == []
        assert warnings(relaying.output()) == []
        assert len(effects.names()) == 8


@pytest.mark.proof
def test_a_broker_killed_and_restarted_empty_loses_no_message_in_flight(rabbitmq: RabbitMQ) -> None:
    """On Redis: test_redis.py. The disk is gone, not only the process; some messages run, some wait, some come."""
    names = [f"m{n}" for n in range(300)]
    outbox.enqueue_many([tasks.note_once.s(name) for name in names[:200]])
    outbox.enqueue_many([tasks.slow.s(f"s{n}", 0.5) for n in range(20)])
    with relay(env=QUICK), worker(env=QUICK):
        await_(lambda: len(effects.names()) > 50, "work is going on")
        rabbitmq.kill()
        outbox.enqueue_many([tasks.note_once.s(name) for name in names[200:]])
        rabbitmq.start(wipe=True)
        wait_until_settled(90)
    assert sorted(effects.names("m")) == sorted(names)
    assert {effects.count(f"s{n}-ended") for n in range(20)} == {1}


def test_queues_deleted_and_purged_in_use_lose_no_message() -> None:
    """A worker and a relay use them."""
    names = [f"m{n}" for n in range(200)]
    with relay(env=QUICK), worker(concurrency=1, env=QUICK) as process:
        outbox.enqueue_many([tasks.slow.s("first", 1)])
        await_(lambda: effects.count("first-begun"), "the worker works")
        outbox.enqueue_many([tasks.note_once.s(name) for name in names[:100]])
        await_(lambda: count("published") == 101, "all are published")
        with app.connection_for_write() as connection:
            connection.default_channel.queue_purge("default")
        wait_until_settled(60)
        with app.connection_for_write() as connection:
            connection.default_channel.queue_delete("default")
        outbox.enqueue_many([tasks.note_once.s(name) for name in names[100:]])
        wait_until_settled(60)
        assert process.alive()
    assert sorted(effects.names("m")) == sorted(names)


@pytest.mark.proof
def test_a_message_past_the_consumer_timeout_does_not_end_workers(
    rabbitmq: RabbitMQ,
) -> None:
    """The broker closes the channel (406) and gives the message out again: the claim makes the copy do nothing."""
    with (
        server_setting(rabbitmq, "consumer_timeout", "1500"),
        server_setting(rabbitmq, "channel_tick_interval", "500"),
    ):
        outbox.enqueue(tasks.slow.s("long", 6))
        with relay(env=QUICK), worker(concurrency=2, env=QUICK) as process:
            await_(lambda: "PRECONDITION_FAILED" in process.output(), "the broker closes the channel")
            wait_until_settled(60)
            outbox.enqueue(tasks.note_once.s("next"))
            wait_until_settled(30)
            assert process.alive()
    assert effects.count("long-begun") == effects.count("long-ended") == effects.count("next") == 1


@pytest.mark.proof
def test_a_broker_without_memory_stops_the_relay(
    rabbitmq: RabbitMQ,
) -> None:
    """It costs at most one batch of copies."""
    with relay_here(batch=50) as relaying:
        outbox.enqueue_many([tasks.note_once.s(f"m{n}") for n in range(200)])
        rabbitmq.control("set_vm_memory_high_watermark", "0.000001")
        try:
            for _ in range(5):
                with pytest.raises(BrokerUnavailable, match="accepts no messages"):
                    publish_all(relaying)
            assert count("pending") >= 150
        finally:
            rabbitmq.control("set_vm_memory_high_watermark", "0.4")

        def goes_on() -> bool:
            try:
                publish_all(relaying)
            except BrokerUnavailable:
                return False
            return count("pending") == 0

        await_(goes_on, "the relay publishes again", 20)
    spent = OutboxMessage.objects.filter(publish_count__gt=2)
    assert spent.count() == 0, "a try was counted while nothing was taken"
    assert ready() <= 250
    with worker():
        wait_until_settled(60)
    assert len(effects.names()) == 200


@pytest.mark.proof
def test_what_was_confirmed_before_the_broker_died_is_not_sent_again(rabbitmq: RabbitMQ) -> None:
    with relay_here(batch=1000) as relaying:
        outbox.enqueue_many([tasks.note_once.s(f"m{n}") for n in range(1000)])
        channel = relaying._publisher._channel
        channel.events["basic_ack"].add(lambda *_: rabbitmq.signal(signal.SIGKILL))
        with pytest.raises(BrokerUnavailable) as failure:
            relaying.run_once()
    assert 0 < len(failure.value.confirmed) < 1000
    assert count("published") == len(failure.value.confirmed)
    assert count("pending") == 1000 - count("published")
    rabbitmq.kill()
    # Without its data: RabbitMQ 3.10 cannot revive a quorum queue that was declared seconds before the kill.
    rabbitmq.start(wipe=True)
    with relay(env=QUICK), worker(env=QUICK):
        wait_until_settled(60)
    assert len(effects.names()) == 1000
    assert set(effects.names()) == {f"m{n}" for n in range(1000)}


@pytest.mark.proof
def test_a_frozen_broker_only_pauses_relay_and_worker(rabbitmq: RabbitMQ) -> None:
    """They go on after it."""
    with relay(env=QUICK) as relaying, worker(env=QUICK) as process:
        outbox.enqueue(tasks.note_once.s("before"))
        wait_until_settled(30)
        rabbitmq.signal(signal.SIGSTOP)
        try:
            outbox.enqueue_many([tasks.note_once.s(f"m{n}") for n in range(100)])
            await_(lambda: "broker unavailable" in relaying.output(), "the relay notices", 60)
        finally:
            rabbitmq.signal(signal.SIGCONT)
        wait_until_settled(60)
        assert process.alive()
        assert relaying.alive()
    assert len(effects.names()) == 101


@contextmanager
def server_setting(rabbitmq: RabbitMQ, name: str, value: str) -> Iterator[None]:
    before = rabbitmq.control("eval", f"application:get_env(rabbit, {name}, undefined).").strip()
    rabbitmq.control("eval", f"application:set_env(rabbit, {name}, {value}).")
    try:
        yield
    finally:
        rabbitmq.control("eval", f"application:set_env(rabbit, {name}, {before}).")
