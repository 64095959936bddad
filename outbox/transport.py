"""Handing a batch to the broker: pipelined on Redis, with batched confirms and `mandatory` on RabbitMQ.

A publisher either returns what the broker refused, message by message, or raises `BrokerAway`; whatever is in
neither is with the broker.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from celery import Celery
from kombu import Connection
from kombu.exceptions import OperationalError

from outbox.wire import Outgoing

#: How long the broker may take to confirm a whole batch.
CONFIRM_TIMEOUT_S = 30.0


class BrokerAway(Exception):
    """The broker cannot be reached, or did not confirm; what of the batch it has is unknown."""


class Publisher:
    """A connection to the broker for one relay. Not for use by several threads."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._connection: Connection | None = None
        self._channel: Any = None

    def publish(self, batch: Sequence[Outgoing]) -> dict[int, str]:
        """Publish the batch; returns row id -> reason for what the broker refused. Raises BrokerAway."""
        with self._open() as channel:
            return self._send(channel, batch)

    def depths(self, queues: Sequence[str]) -> dict[str, int]:
        """Messages ready in each queue, those already handed to a worker not counted. Raises BrokerAway."""
        with self._open() as channel:
            return self._depths(channel, queues)

    def close(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            try:
                connection.collect(socket_timeout=1)
            except (
                Exception
            ) as error:  # Closing a broken connection may fail in any way, and does not matter.
                del error

    @contextmanager
    def _open(self) -> Iterator[Any]:
        """The channel; every way in which a connection breaks becomes BrokerAway, and the next use reconnects."""
        try:
            if self._channel is None:
                self._connection = self._app.connection_for_write()
                self._connection.connect()
                self._channel = self._connection.channel()
                self._prepare(self._channel)
            yield self._channel
        except (TimeoutError, OperationalError, OSError) as error:
            self.close()
            raise BrokerAway(str(error)) from error
        except Exception as error:
            known = self._connection is not None and isinstance(
                error, (*self._connection.connection_errors, *self._connection.channel_errors)
            )
            self.close()
            # kombu counts KeyError as a connection error; here it would be our own bug.
            if known and not isinstance(error, KeyError):
                raise BrokerAway(f"{type(error).__name__}: {error}") from error
            raise

    def _prepare(self, channel: Any) -> None: ...

    def _send(self, channel: Any, batch: Sequence[Outgoing]) -> dict[int, str]:
        raise NotImplementedError

    def _depths(self, channel: Any, queues: Sequence[str]) -> dict[str, int]:
        raise NotImplementedError


class RedisPublisher(Publisher):
    """One round trip a batch, through kombu's own channel, so that the wire format stays kombu's."""

    def _send(self, channel: Any, batch: Sequence[Outgoing]) -> dict[int, str]:
        with channel.conn_or_acquire() as client:
            pipeline = client.pipeline(transaction=False)
            # kombu's `_put` pushes on the client that this method hands out. Given the pipeline instead, it
            # collects the pushes; to go through the default exchange spares a look-up of bindings a message.
            original = channel.conn_or_acquire
            channel.conn_or_acquire = lambda client=None: nullcontext(pipeline)
            try:
                for message in batch:
                    properties = message.properties()
                    prepared = channel.prepare_message(
                        message.body(),
                        content_type=properties.pop("content_type"),
                        content_encoding=properties.pop("content_encoding"),
                        headers=message.wire_headers(),
                        properties=properties,
                    )
                    channel.basic_publish(prepared, exchange="", routing_key=message.queue)
            finally:
                channel.conn_or_acquire = original
            pipeline.execute()
        return {}

    def _depths(self, channel: Any, queues: Sequence[str]) -> dict[str, int]:
        with channel.conn_or_acquire() as client:
            pipeline = client.pipeline(transaction=False)
            for queue in queues:
                pipeline.llen(queue)
            return dict(zip(queues, pipeline.execute(), strict=True))


class AmqpPublisher(Publisher):
    """Publisher confirms, awaited once a batch; `mandatory`, so that an unroutable message is an answer."""

    def _prepare(self, channel: Any) -> None:
        self._outstanding: set[int] = set()
        self._refused: dict[int, str] = {}
        self._by_tag: dict[int, Outgoing] = {}
        self._by_message_id: dict[str, Outgoing] = {}
        self._tag = 0
        for queue in self._app.amqp.queues.values():
            queue(channel).declare()
        channel.confirm_select()
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        channel.events["basic_return"].add(self._on_return)

    def _send(self, channel: Any, batch: Sequence[Outgoing]) -> dict[int, str]:
        self._refused = {}
        self._by_message_id = {message.message_id: message for message in batch}
        for message in batch:
            properties = message.properties()
            prepared = channel.prepare_message(
                message.body(),
                content_type=properties.pop("content_type"),
                content_encoding=properties.pop("content_encoding"),
                headers=message.wire_headers(),
                properties=properties,
            )
            self._tag += 1
            self._outstanding.add(self._tag)
            self._by_tag[self._tag] = message
            channel._basic_publish(prepared, exchange="", routing_key=message.queue, mandatory=True)
        deadline = time.monotonic() + CONFIRM_TIMEOUT_S
        while self._outstanding:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise OperationalError(
                    f"no confirm for {len(self._outstanding)} messages in {CONFIRM_TIMEOUT_S:g} s"
                )
            channel.connection.drain_events(timeout=remaining)
        self._by_tag.clear()
        return dict(self._refused)

    def _on_ack(self, delivery_tag: int, multiple: bool) -> None:
        self._answered(delivery_tag, multiple)

    def _on_nack(self, delivery_tag: int, multiple: bool) -> None:
        for message in self._answered(delivery_tag, multiple):
            self._refused.setdefault(message.id, "refused by the broker (nack)")

    def _on_return(self, exception: Any, exchange: str, routing_key: str, message: Any) -> None:
        returned = self._by_message_id.get(message.properties.get("correlation_id"))
        if returned is not None:
            self._refused[returned.id] = f"unroutable: the broker has no queue {routing_key!r}"

    def _answered(self, delivery_tag: int, multiple: bool) -> list[Outgoing]:
        tags = [tag for tag in self._outstanding if tag <= delivery_tag] if multiple else [delivery_tag]
        self._outstanding.difference_update(tags)
        return [self._by_tag[tag] for tag in tags if tag in self._by_tag]

    def _depths(self, channel: Any, queues: Sequence[str]) -> dict[str, int]:
        return {queue: channel.queue_declare(queue, passive=True).message_count for queue in queues}


def publisher_for(app: Celery) -> Publisher:
    """The publisher for the broker that `BROKER_URL` names."""
    amqp = app.conf.broker_url.startswith(("amqp", "pyamqp"))
    return AmqpPublisher(app) if amqp else RedisPublisher(app)
