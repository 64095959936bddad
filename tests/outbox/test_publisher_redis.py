"""The publisher on Redis: what it pushes, and how a broken, silent or full server is told."""

from __future__ import annotations

import json
import signal
import threading
import time
from dataclasses import replace

import pytest
import redis

from config.celery import app
from outbox.broker import publisher_for
from outbox.broker.publisher import BrokerUnavailable
from tests.outbox.test_publisher import batch, received
from tests.support.brokers import private_redis


def test_an_envelope_on_redis_is_the_one_that_kombus_channel_pushes() -> None:
    with private_redis() as server, redis.Redis.from_url(server.url(0), decode_responses=True) as client:
        publisher = publisher_for(app)
        publisher.publish(sent := batch(2))
        with app.connection_for_write() as connection:
            channel = connection.default_channel
            for message in sent:
                prepared = channel.prepare_message(
                    message.body(),
                    content_type="application/json",
                    content_encoding="utf-8",
                    headers=message.wire_headers(),
                    properties={"delivery_mode": 2, "correlation_id": message.message_id},
                )
                channel.basic_publish(prepared, exchange="", routing_key="default")
        *kombus, second, first = map(json.loads, client.lrange("default", 0, -1))
        tags = [envelope["properties"].pop("delivery_tag") for envelope in (first, second, *kombus)]
        assert [first, second] == list(reversed(kombus))
        assert len(set(tags)) == 4
        publisher.close()


def test_a_redis_that_is_nearly_full_takes_what_it_has_room_for() -> None:
    large = [replace(message, args=json.dumps(["x" * 60_000])) for message in batch(100)]
    with private_redis() as server, redis.Redis.from_url(server.url(0)) as client:
        publisher = publisher_for(app)
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 5_000_000)
        with pytest.raises(BrokerUnavailable, match="maxmemory"):
            publisher.publish(large)
        assert 0 < client.llen("default") < 100
        publisher.close()


def test_no_two_publishers_give_copies_the_same_tag() -> None:
    with private_redis() as server, redis.Redis.from_url(server.url(0)) as client:
        sent = batch(3)
        for publisher in (publisher_for(app), publisher_for(app)):
            publisher.publish(sent)
            publisher.publish(sent)
            publisher.close()
        envelopes = [json.loads(raw) for raw in client.lrange("default", 0, -1)]
        assert len({envelope["properties"]["delivery_tag"] for envelope in envelopes}) == 12


def test_the_key_prefix_of_a_shared_redis_is_honoured() -> None:
    with private_redis(global_keyprefix="shop:") as server:
        publisher = publisher_for(app)
        publisher.publish(batch(3))
        with redis.Redis.from_url(server.url(0)) as client:
            assert client.llen("shop:default") == 3
        assert publisher.depths(["default"]) == {"default": 3}
        assert [message.headers["task"] for message in received(3)] == ["tests.support.tasks.note"] * 3
        publisher.close()


def test_a_redis_that_dies_amid_a_batch_is_down() -> None:
    """The next one is reached."""
    with private_redis() as server:
        publisher = publisher_for(app)
        publisher.publish(batch(1))
        server.signal(signal.SIGSTOP)
        killer = threading.Timer(0.5, server.kill)
        killer.start()
        with pytest.raises(BrokerUnavailable) as failure:
            publisher.publish(batch(500))
        killer.join()
        assert failure.value.confirmed == frozenset()
        with pytest.raises(BrokerUnavailable, match="refused"):
            publisher.depths(["default"])
        server.start()
        assert publisher.publish(batch(2)) == {}
        assert publisher.depths(["default"]) == {"default": 2}
        publisher.close()


def test_a_redis_that_never_answers_is_down_after_the_timeout() -> None:
    """It accepts the connection."""
    with private_redis(socket_timeout=1) as server:
        publisher = publisher_for(app)
        publisher.publish(batch(1))
        server.signal(signal.SIGSTOP)
        for attempt in ("on the connection that it knew", "on a new connection"):
            began = time.monotonic()
            with pytest.raises(BrokerUnavailable):
                publisher.publish(batch(500))
            assert time.monotonic() - began < 3, attempt
        server.signal(signal.SIGCONT)
        assert publisher.publish(batch(1)) == {}
        publisher.close()


def test_a_full_redis_is_down_and_no_message_at_fault() -> None:
    with private_redis() as server, redis.Redis.from_url(server.url(0)) as client:
        publisher = publisher_for(app)
        client.config_set("maxmemory", 1)
        with pytest.raises(BrokerUnavailable, match="maxmemory"):
            publisher.publish(batch(3))
        client.config_set("maxmemory", 0)
        assert publisher.publish(batch(3)) == {}
        publisher.close()
