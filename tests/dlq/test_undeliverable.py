"""What RabbitMQ gives up itself is a dead letter, whole, and no message of it is left on the broker."""

from __future__ import annotations

import json
import uuid

import pytest

import outbox
from config.celery import app
from config.queues import DELIVERY_LIMIT, UNDELIVERABLE
from dlq.models import DeadLetter
from dlq.undeliverable import collect
from outbox.models import OutboxMessage
from outbox.relay.loop import Relay
from tests.support import rawpublish, tasks
from tests.support.brokers import on_rabbitmq
from tests.support.processes import await_

pytestmark = [on_rabbitmq, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clean")]


def declare_queues() -> None:
    """As the relay does when it connects."""
    relay = Relay(app)
    relay._publisher.depths(["default"])
    relay._publisher.close()


def give_up(queue: str = "default") -> None:
    """Receive the message as often as RabbitMQ allows, each time by a consumer that dies with it."""
    with app.connection_for_read() as connection:
        for _ in range(DELIVERY_LIMIT + 1):
            channel = connection.channel()
            await_(lambda channel=channel: channel.basic_get(queue), "the message comes back", 10)
            channel.close()
        put_aside = connection.channel()
        await_(
            lambda: put_aside.queue_declare(UNDELIVERABLE, passive=True).message_count, "it is put aside", 10
        )


def test_a_message_that_ends_every_worker_becomes_one_dead_letter() -> None:
    """The dead letter has the message as it was sent."""
    declare_queues()
    headers = rawpublish.task_headers("orders.of.another.shop")
    rawpublish.publish(json.dumps([[7], {"a": "b"}, None]), headers)
    give_up()
    assert collect() == 1
    assert collect() == 0
    dead_letter = DeadLetter.objects.get()
    assert (dead_letter.message_id, dead_letter.task, dead_letter.queue) == (
        headers["id"],
        "orders.of.another.shop",
        "default",
    )
    assert (dead_letter.args, dead_letter.kwargs, dead_letter.cause) == ([7], {"a": "b"}, "lost")
    assert dead_letter.error == "RabbitMQ gave it up (delivery limit) in queue 'default'"
    assert dead_letter.message is not None
    assert dead_letter.message.headers == headers
    assert dead_letter.message.body == json.dumps([[7], {"a": "b"}, None]).encode()


def test_a_message_of_the_outbox_is_buried_with_its_row() -> None:
    message_id = outbox.enqueue(tasks.note.s("a"))
    relay = Relay(app)
    relay.run_once()
    give_up()
    assert collect() == 1
    assert OutboxMessage.objects.get(message_id=message_id).status == "dead"
    assert DeadLetter.objects.get().message_id == str(message_id)
    relay._publisher.close()


def test_what_cannot_be_decoded_is_kept_all_the_same() -> None:
    declare_queues()
    rawpublish.publish(b"\x00\xff", {"id": str(uuid.uuid4())}, content_type="application/x-odd")
    give_up()
    assert collect() == 1
    dead_letter = DeadLetter.objects.get()
    assert dead_letter.message is not None
    assert dead_letter.message.body == b"\x00\xff"


def test_an_unreadable_message_holds_up_none_behind_it() -> None:
    declare_queues()
    broken = {"compression": "application/x-gzip", "x-first-death-reason": {"set": "by the producer"}}
    headers = [rawpublish.task_headers("gone", **more) for more in (broken, {})]
    with app.connection_for_write() as connection:
        for each in headers:
            message = connection.default_channel.prepare_message(b"no gzip", headers=each)
            connection.default_channel.basic_publish(message, exchange="", routing_key=UNDELIVERABLE)
    assert collect() == 2
    assert {dead_letter.message_id for dead_letter in DeadLetter.objects.all()} == {
        each["id"] for each in headers
    }
    dead_letter = DeadLetter.objects.get(message_id=headers[0]["id"])
    assert dead_letter.message is not None
    assert dead_letter.message.body == b"no gzip"


def test_the_queue_of_undeliverable_messages_is_a_classic_one() -> None:
    """A quorum queue would drop a message that comes back often."""
    declare_queues()
    with app.connection_for_write() as connection:
        # A declaration that differs is refused (406).
        connection.default_channel.queue_declare(
            UNDELIVERABLE, durable=True, auto_delete=False, arguments={"x-queue-type": "classic"}
        )


def test_without_the_queue_there_is_nothing_to_collect() -> None:
    assert collect() == 0
