"""Publishers on real brokers: what they send is what kombu would, and every outage is told as one."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from kombu import Consumer
from pytest_django import Settings

from config.celery import app
from outbox.broker import publisher_for
from outbox.broker.envelope import Outgoing
from outbox.broker.publisher import BrokerUnavailable, Publisher, QueueUnusable
from outbox.payload import MAX_HEADERS_BYTES
from tests.support import brokers
from tests.support.brokers import on_both_brokers, on_rabbitmq, using
from tests.support.proxy import proxied


def outgoing(number: int = 1, *, queue: str = "default", headers: dict[str, Any] | None = None) -> Outgoing:
    return Outgoing(
        id=number,
        message_id=str(uuid.uuid4()),
        generation=1,
        publish_count=1,
        published_at=time.time(),
        task="tests.support.tasks.note",
        args=json.dumps([f"m{number} ü"]),
        kwargs="{}",
        headers=json.dumps(headers or {}),
        correlation_id="c",
        queue=queue,
    )


def batch(size: int, first: int = 1) -> list[Outgoing]:
    return [outgoing(number) for number in range(first, first + size)]


@pytest.fixture
def publisher(broker: str) -> Iterator[Publisher]:
    brokers.empty()
    publisher = publisher_for(app)
    yield publisher
    publisher.close()


def received(count: int, queue: str = "default") -> list[Any]:
    """What an ordinary kombu consumer gets."""
    messages: list[Any] = []
    with app.connection_for_read() as connection:
        declared = app.amqp.queues[queue]

        def take(message: Any) -> None:
            messages.append(message)
            message.ack()

        with Consumer(connection, [declared], on_message=take, accept=["json"], prefetch_count=500):
            while len(messages) < count:
                connection.drain_events(timeout=10)
    return messages


@on_both_brokers
def test_an_ordinary_consumer_reads_what_was_published_in_order(publisher: Publisher) -> None:
    sent = [outgoing(n, headers={"traceparent": "00-ab-cd-01"}) for n in range(1, 51)]
    assert publisher.publish(sent) == {}
    messages = received(50)
    for expected, message in zip(sent, messages, strict=True):
        assert message.decode()[:2] == [json.loads(expected.args), {}]
        assert message.headers["id"] == expected.message_id
        assert message.headers["outbox"] == expected.identity()
        assert message.headers["traceparent"] == "00-ab-cd-01"
        assert message.properties["correlation_id"] == expected.message_id
        assert message.properties["delivery_mode"] == 2
        assert message.delivery_info["routing_key"] == "default"


@on_both_brokers
def test_what_was_published_is_what_celery_itself_publishes(publisher: Publisher) -> None:
    """Same body and properties; of Celery's headers those that say something, and the outbox's own."""
    from tests.support.tasks import note

    publisher.publish([outgoing()])
    with app.connection_for_write() as connection:
        app.amqp.send_task_message(
            app.amqp.Producer(connection),
            note.name,
            app.amqp.create_task_message(str(uuid.uuid4()), note.name, ("m1 ü",), {}),
            queue="default",
        )
    ours, celerys = received(2)
    assert ours.decode() == [list(celerys.decode()[0]), *celerys.decode()[1:]]
    assert (ours.content_type, ours.content_encoding) == (celerys.content_type, celerys.content_encoding)
    assert ours.headers.keys() - celerys.headers.keys() == {"outbox", "correlation"}
    for_the_log = {"argsrepr", "kwargsrepr", "origin"}
    omitted = celerys.headers.keys() - ours.headers.keys() - for_the_log
    assert {name: celerys.headers[name] for name in omitted if celerys.headers[name]} == {
        "timelimit": [None, None]
    }


@on_both_brokers
def test_a_rows_own_headers_cannot_steer_the_worker_past_the_journal(publisher: Publisher) -> None:
    theirs = {
        "eta": "2999-01-01",
        "expires": "2001-01-01",
        "timelimit": [1, 1],
        "id": "x",
        "outbox": {},
        "mine": 1,
    }
    theirs |= {"outbox_begun": True, "compression": "zlib", "get": 1, "called_directly": True, "shadow": "x"}
    publisher.publish([sent := outgoing(headers=theirs)])
    (message,) = received(1)
    assert message.headers["id"] == sent.message_id
    assert message.headers["outbox"] == sent.identity()
    assert message.headers.keys() & theirs.keys() == {"id", "mine", "outbox"}


@on_both_brokers
def test_the_depth_is_the_number_of_ready_messages_of_each_queue(publisher: Publisher) -> None:
    publisher.publish([*batch(7), outgoing(8, queue="low")])
    assert publisher.depths(["default", "low", "critical"]) == {"default": 7, "low": 1, "critical": 0}


@on_rabbitmq
def test_ten_thousand_messages_are_confirmed_batch_by_batch(publisher: Publisher) -> None:
    for first in range(1, 10_001, 500):
        assert publisher.publish(batch(500, first)) == {}
        assert not publisher._unconfirmed  # type: ignore[attr-defined]
    assert publisher.depths(["default"]) == {"default": 10_000}


@on_rabbitmq
def test_a_queue_that_does_not_exist_is_unusable(
    publisher: Publisher,
) -> None:
    """The messages of other queues are published."""
    with pytest.raises(QueueUnusable, match="queue nowhere: unroutable") as unusable:
        publisher.publish(
            [outgoing(1), outgoing(2, queue="nowhere"), outgoing(3), outgoing(4, queue="nowhere")]
        )
    assert unusable.value.confirmed == {1, 3}
    assert publisher.depths(["nowhere", "default"]) == {"default": 2}
    assert publisher.unusable.keys() == {"nowhere"}
    assert "NOT_FOUND" in publisher.unusable["nowhere"]
    assert publisher.depths(["default"]) == {"default": 2}
    assert publisher.publish(batch(3)) == {}, "the connection is sound"


@on_rabbitmq
def test_a_message_that_amqp_cannot_carry_is_refused(publisher: Publisher) -> None:
    """The others are published."""
    assert publisher.publish([outgoing(1), outgoing(2, headers={"big": 2**70}), outgoing(3)]).keys() == {2}
    assert publisher.depths(["default"]) == {"default": 2}


@on_rabbitmq
def test_the_largest_headers_that_may_be_enqueued_fit_into_a_frame(publisher: Publisher) -> None:
    """A longer one would not be refused: the broker would cut the connection, with every batch that it is in."""
    nested: list[Any] = []
    for _ in range(49):
        nested = [nested]  # two characters of JSON are five bytes of AMQP: nothing grows more
    for widest in (1, 0.5, {}, nested):
        headers = {"n": [widest] * ((MAX_HEADERS_BYTES - len('{"n": []}')) // len(json.dumps(widest) + ", "))}
        assert len(json.dumps(headers)) <= MAX_HEADERS_BYTES
        assert publisher.publish([outgoing(headers=headers)]) == {}


@on_rabbitmq
def test_a_deleted_queue_is_unusable_once_and_then_redeclared(publisher: Publisher) -> None:
    """At once, a worker might not learn that the queue which it reads was another one."""
    publisher.publish(batch(3))
    brokers.empty()
    assert publisher.depths(["default"]) == {}
    assert "NOT_FOUND" in publisher.unusable["default"]
    assert publisher.depths(["default"]) == {"default": 0}
    assert publisher.publish(batch(2)) == {}
    assert publisher.depths(["default"]) == {"default": 2}


@on_rabbitmq
def test_a_queue_that_is_full_is_unusable_and_says_what_it_took(publisher: Publisher) -> None:
    """A nack is no fault of the message: it must not use up the tries that a bad message has."""
    with app.connection_for_write() as connection:
        arguments = {"x-queue-type": "quorum", "x-max-length": 5, "x-overflow": "reject-publish"}
        connection.default_channel.queue_declare(
            "small", durable=True, auto_delete=False, arguments=arguments
        )
        try:
            sent = [outgoing(number, queue="small") for number in range(1, 301)]
            with pytest.raises(QueueUnusable, match=r"queue small: .*nack") as full:
                publisher.publish(sent)
            assert publisher.depths(["small"])["small"] == len(full.value.confirmed) < 300
        finally:
            connection.default_channel.queue_delete("small")
    assert publisher.publish(batch(1)) == {}


@on_rabbitmq
def test_a_broker_that_stops_amid_a_frame_is_given_up(broker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outbox.broker.rabbitmq.CONFIRM_TIMEOUT_S", 1.0)
    address = urlsplit(broker)
    with (
        proxied("127.0.0.1", address.port or 0) as proxy,
        using(broker.replace(str(address.port), str(proxy.port))),
    ):
        publisher = publisher_for(app)
        publisher.publish(batch(1))
        proxy.stall(after_bytes=10)  # of an answer of some thirty
        failure: list[BaseException] = []

        def ask() -> None:
            try:
                publisher.depths(["default"])
            except BaseException as error:
                failure.append(error)

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(10)
        assert not asking.is_alive(), "it waits for ever"
        assert isinstance(failure[0], BrokerUnavailable)


@pytest.mark.proof
@on_rabbitmq
def test_heartbeats_keep_an_idle_connection_and_without_them_the_broker_cuts_it(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    settings.CELERY_BROKER_HEARTBEAT = 1
    monkeypatch.setattr("outbox.broker.publisher.TEND_EVERY_S", 0.1)
    publisher.publish(batch(1))
    channel = publisher._channel
    until = time.monotonic() + 4  # RabbitMQ gives up after two silent intervals
    while time.monotonic() < until:
        publisher.keep_alive()
        time.sleep(0.1)
    assert publisher._channel is channel, "the connection was dropped"
    assert publisher.publish(batch(1)) == {}
    time.sleep(4)
    publisher.keep_alive()
    assert publisher._channel is None, "the broker's cut was not noticed"
    assert publisher.publish(batch(1)) == {}, "and yet no batch is lost"
    assert publisher.depths(["default"]) == {"default": 3}
