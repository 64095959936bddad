"""What Redis does to messages when it dies, freezes or fails over, and what keeps every promise through it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis
from django.db import connection

import outbox
from config.celery import app
from outbox.broker import publisher_for
from outbox.models import OutboxMessage
from outbox.relay.loop import Relay
from outbox.testing import wait_until_settled
from tests.outbox.test_publisher import batch, received
from tests.support import effects, tasks
from tests.support.brokers import private_redis, using
from tests.support.pool import assert_every_process_works
from tests.support.processes import await_, relay, worker
from tests.support.sentinel import MASTER_NAME, client_of, watched_redis

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clean")]

QUICK = {"OUTBOX_MARGIN": "1", "OUTBOX_WORKER_TIMEOUT": "3"}


def count(status: str) -> int:
    return OutboxMessage.objects.filter(status=status).count()


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


def test_a_redis_killed_and_restarted_empty_loses_no_message_in_flight() -> None:
    names = [f"m{n}" for n in range(300)]
    with private_redis() as server:
        outbox.enqueue_many([tasks.note_once.s(name) for name in names[:200]])
        outbox.enqueue_many([tasks.slow.s(f"s{n}", 0.5) for n in range(10)])
        with relay(env=QUICK), worker(env=QUICK):
            await_(lambda: len(effects.names()) > 50, "work is going on")
            server.kill()
            outbox.enqueue_many([tasks.note_once.s(name) for name in names[200:]])
            server.start()
            wait_until_settled(90)
    assert sorted(effects.names("m")) == sorted(names)
    assert {effects.count(f"s{n}-ended") for n in range(10)} == {1}


def test_a_busy_worker_with_room_survives_the_death_of_redis() -> None:
    """Celery's own consumer does not: it ends, and with it the running task."""
    with private_redis() as server:
        outbox.enqueue(tasks.slow.s("long", 3))
        with relay(env=QUICK), worker(concurrency=2, env=QUICK) as process:
            await_(lambda: effects.count("long-begun"), "it works")
            server.kill()
            await_(lambda: "Connection to broker lost" in process.output(), "it notices")
            server.start()
            outbox.enqueue(tasks.note_once.s("next"))
            wait_until_settled(60)
            assert_every_process_works(process)
    assert effects.count("long-begun") == effects.count("long-ended") == effects.count("next") == 1


def test_a_redis_that_never_answers_only_pauses_the_relay() -> None:
    """It accepts connections. The relay goes on after it."""
    with private_redis(socket_timeout=1) as server, relaying():
        outbox.enqueue(tasks.note.s("before"))
        await_(lambda: count("published") == 1, "the relay publishes")
        server.signal(signal.SIGSTOP)
        outbox.enqueue_many([tasks.note.s(f"m{n}") for n in range(20)])
        publishes_spent = OutboxMessage.objects.filter(publish_count__gt=0)
        await_(lambda: publishes_spent.count() == 1 and count("pending") == 20, "the batch is reverted")
        server.signal(signal.SIGCONT)
        await_(lambda: count("pending") == 0, "the relay goes on")


def test_the_master_is_found_through_its_sentinel() -> None:
    with watched_redis() as watched, using(watched.url, master_name=MASTER_NAME):
        publisher = publisher_for(app)
        publisher.publish(batch(5))
        assert publisher.depths(["default"]) == {"default": 5}
        with client_of(watched.master) as client:
            assert client.llen("default") == 5
        assert len(received(5)) == 5
        publisher.close()


def is_master(client: redis.Redis) -> bool:
    try:
        return bool(client.info("replication")["role"] == "master")
    except redis.ConnectionError:
        # In promoting it the sentinel ends the connections of its clients, with a question under way, too.
        return False


@pytest.mark.proof
def test_a_failover_that_loses_messages_loses_none() -> None:
    """Replication is asynchronous: here the dead master had passed on nothing at all."""
    names = [f"m{n}" for n in range(400)]
    with watched_redis() as watched, using(watched.url, master_name=MASTER_NAME):
        env = QUICK | {"BROKER_MASTER_NAME": MASTER_NAME}
        with relay(env=env), worker(env=env):
            outbox.enqueue_many([tasks.note_once.s(name) for name in names[:200]])
            await_(lambda: len(effects.names()) > 20, "work is going on")
            with client_of(watched.replica) as client:
                watched.master.kill()
                outbox.enqueue_many([tasks.note_once.s(name) for name in names[200:]])
                await_(lambda: is_master(client), "the replica is promoted", 30)
                client.flushall()
            wait_until_settled(90)
    assert sorted(effects.names()) == sorted(names)
