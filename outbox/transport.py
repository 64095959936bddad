"""Handing a batch to the broker: in one push on Redis, with batched confirms and `mandatory` on RabbitMQ.

A publisher either returns what the broker refused, message by message, or raises `BrokerAway`; whatever is in
neither is with the broker.
"""

from __future__ import annotations

import itertools
import logging
import struct
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from celery import Celery
from kombu import Connection
from kombu.exceptions import OperationalError

from outbox.wire import Outgoing

log = logging.getLogger(__name__)

#: How long the broker may take to confirm a whole batch, and to answer anything else.
CONFIRM_TIMEOUT_S = 30.0
#: A Redis that is nearly full refuses a command as a whole. Of smaller ones it takes what it has room for, which the
#: workers empty meanwhile.
MAX_PUSH_CHARS = 1_000_000
#: An idle connection is looked at this often. A heartbeat is due every 30 s (half of RabbitMQ's 60).
TEND_EVERY_S = 1.0


class BrokerAway(Exception):
    """The broker cannot be reached, or takes nothing.

    Of the batch it has the messages whose row ids are in `confirmed`; of the others nobody knows.
    """

    def __init__(self, reason: str, confirmed: Collection[int] = ()) -> None:
        super().__init__(reason)
        self.confirmed = frozenset(confirmed)


class Publisher:
    """A connection to the broker for one relay. Not for use by several threads."""

    _connection: Connection | None = None
    _channel: Any = None
    _tended_at = 0.0

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._confirmed: set[int] = set()

    def publish(self, batch: Sequence[Outgoing]) -> dict[int, str]:
        """Publish the batch; returns row id -> reason for what the broker refused. Raises BrokerAway."""
        self._confirmed = set()
        with self._open() as channel:
            return self._send(channel, batch)

    def depths(self, queues: Sequence[str]) -> dict[str, int]:
        """Messages ready in each queue, those already handed to a worker not counted. Raises BrokerAway."""
        self._confirmed = set()
        with self._open() as channel:
            return self._depths(channel, queues)

    def keep_alive(self) -> None:
        """To be called every few seconds while there is nothing to publish; costs nothing more often.

        Keeps up the heartbeat. A connection that broke meanwhile is dropped here, where nothing is at stake,
        and the next use opens another.
        """
        if self._channel is None or time.monotonic() - self._tended_at < TEND_EVERY_S:
            return
        self._tended_at = time.monotonic()
        try:
            self._tend(self._channel)
        except Exception as error:  # Whatever it is, a new connection is the answer to it.
            log.info("The idle connection to the broker is dropped: %s", error)
            self.close()

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
        self.keep_alive()
        try:
            if self._channel is None:
                # Without a heartbeat whatever stands between may drop an idle connection, and nobody is told.
                self._connection = self._app.connection_for_write(heartbeat=self._app.conf.broker_heartbeat)
                # One try a host. `connect` would wait two seconds and try again, and the relay has its own backoff.
                self._connection.ensure_connection(max_retries=max(0, len(self._connection.alt) - 1))
                self._channel = self._connection.channel()
                self._prepare(self._channel)
            yield self._channel
        except BrokerAway:
            # The connection is sound, and what it will say is how we learn that the broker takes messages again.
            raise
        except (OperationalError, OSError) as error:
            self.close()
            raise BrokerAway(str(error.__cause__ or error), self._confirmed) from error
        except Exception as error:
            known = self._connection is not None and isinstance(
                error, (*self._connection.connection_errors, *self._connection.channel_errors)
            )
            self.close()
            # kombu counts KeyError as a connection error; here it would be our own bug.
            if known and not isinstance(error, KeyError):
                raise BrokerAway(f"{type(error).__name__}: {error}", self._confirmed) from error
            raise

    def _prepare(self, channel: Any) -> None: ...

    def _tend(self, channel: Any) -> None: ...

    def _send(self, channel: Any, batch: Sequence[Outgoing]) -> dict[int, str]:
        raise NotImplementedError

    def _depths(self, channel: Any, queues: Sequence[str]) -> dict[str, int]:
        raise NotImplementedError


class RedisPublisher(Publisher):
    """One LPUSH a batch, or a megabyte of it, of the envelopes that kombu's channel would push one by one.

    Through the channel publishing takes 1.7 times as long: a command to pack, an answer to read, a random tag each.
    """

    def __init__(self, app: Celery) -> None:
        super().__init__(app)
        #: A copy is kept by its tag while a worker has it: two copies with one tag would acknowledge each other.
        self._tags = (f"{prefix}-{number}" for prefix in [uuid.uuid4()] for number in itertools.count())

    def _send(self, channel: Any, batch: Sequence[Outgoing]) -> dict[int, str]:
        with channel.conn_or_acquire() as client, client.pipeline(transaction=False) as pipeline:
            for queue, envelopes in self._pushes(batch):
                pipeline.lpush(queue, *envelopes)
            pipeline.execute()
        return {}

    def _pushes(self, batch: Sequence[Outgoing]) -> Iterator[tuple[str, list[str]]]:
        """The batch in its order, as queue and envelopes of one push each."""
        queue, envelopes, chars = "", list[str](), 0
        for message in batch:
            if envelopes and (message.queue != queue or chars > MAX_PUSH_CHARS):
                yield queue, envelopes
                envelopes, chars = [], 0
            queue = message.queue
            envelopes.append(message.redis_envelope(next(self._tags)))
            chars += len(envelopes[-1])
        if envelopes:
            yield queue, envelopes

    def _depths(self, channel: Any, queues: Sequence[str]) -> dict[str, int]:
        with channel.conn_or_acquire() as client:
            pipeline = client.pipeline(transaction=False)
            for queue in queues:
                pipeline.llen(queue)
            return dict(zip(queues, pipeline.execute(), strict=True))


class AmqpPublisher(Publisher):
    """Publisher confirms, awaited once a batch; `mandatory`, so that an unroutable message is an answer."""

    _blocked = ""

    def _prepare(self, channel: Any) -> None:
        # Delivery tag -> message, for what is not confirmed yet. The broker counts tags from 1 on each channel.
        self._unconfirmed: dict[int, Outgoing] = {}
        self._by_message_id: dict[str, Outgoing] = {}
        self._refused: dict[int, str] = {}
        self._nacked = 0
        self._tag = 0
        self._blocked = ""
        # `read_timeout` does not end every wait: py-amqp repeats a read that timed out in the middle of a frame.
        channel.connection.transport.sock.settimeout(CONFIRM_TIMEOUT_S)
        channel.connection.on_blocked = self._on_blocked
        channel.connection.on_unblocked = self._on_unblocked
        self._declare(channel)
        channel.confirm_select()
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        channel.events["basic_return"].add(self._on_return)

    def _declare(self, channel: Any) -> None:
        for queue in self._app.amqp.queues.values():
            arguments = queue.queue_arguments or {}
            if dead_letters := arguments.get("x-dead-letter-routing-key"):
                # What is dead-lettered to a queue that does not exist is dropped, or never leaves. Classic, because a
                # quorum queue of RabbitMQ 4 drops what comes back more often than its limit (20 by default), and this
                # is where nothing may be dropped; 3.x knows no way to say that there is no limit.
                kind = {"x-queue-type": "classic"}
                channel.queue_declare(dead_letters, durable=True, auto_delete=False, arguments=kind)
            queue(channel).declare()

    def _tend(self, channel: Any) -> None:
        connection = channel.connection
        try:
            while True:
                # Not 0: a read without any waiting would give up in the middle of a frame and spin.
                connection.drain_events(timeout=0.001)
        except TimeoutError:
            pass
        connection.heartbeat_tick()

    def _send(self, channel: Any, batch: Sequence[Outgoing]) -> dict[int, str]:
        self._refuse_while_blocked()
        self._refused, self._nacked = {}, 0
        self._by_message_id = {message.message_id: message for message in batch}
        for message in batch:
            # Blocked in the middle of the batch: what was sent is in the broker's buffers, and will come one day.
            self._refuse_while_blocked()
            try:
                # `basic_publish` would, by `confirm_publish`, wait for the confirm of each.
                channel._basic_publish(
                    self._prepared(channel, message), exchange="", routing_key=message.queue, mandatory=True
                )
            except struct.error as error:
                # AMQP cannot say it (a header with an integer of more than 64 bits); nothing was sent of it.
                self._refused[message.id] = f"not encodable: {error}"
            else:
                self._tag += 1
                self._unconfirmed[self._tag] = message
        deadline = time.monotonic() + CONFIRM_TIMEOUT_S
        while self._unconfirmed:
            self._refuse_while_blocked()
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise OperationalError(
                    f"no confirm for {len(self._unconfirmed)} messages in {CONFIRM_TIMEOUT_S:g} s"
                )
            channel.connection.drain_events(timeout=remaining)
        if self._nacked:
            # No fault of the messages: a queue without its majority, a full one, a broken disk.
            raise BrokerAway(
                f"the broker refused (nack) {self._nacked} of {len(batch)} messages", self._confirmed
            )
        return dict(self._refused)

    @staticmethod
    def _prepared(channel: Any, message: Outgoing) -> Any:
        properties = message.amqp_properties()
        return channel.prepare_message(
            message.body(),
            content_type=properties.pop("content_type"),
            content_encoding=properties.pop("content_encoding"),
            headers=message.wire_headers(),
            properties=properties,
        )

    def _refuse_while_blocked(self) -> None:
        if self._blocked:
            raise BrokerAway(f"the broker takes no messages: {self._blocked}", self._confirmed)

    def _on_blocked(self, reason: str) -> None:
        self._blocked = reason or "connection.blocked"

    def _on_unblocked(self) -> None:
        self._blocked = ""

    def _on_ack(self, delivery_tag: int, multiple: bool) -> None:
        self._confirmed |= {
            message.id for message in self._answered(delivery_tag, multiple)
        } - self._refused.keys()

    def _on_nack(self, delivery_tag: int, multiple: bool) -> None:
        self._nacked += len(self._answered(delivery_tag, multiple))

    def _on_return(self, exception: Any, exchange: str, routing_key: str, message: Any) -> None:
        # It comes before the message's ack, which says only that the broker is done with it.
        returned = self._by_message_id.get(message.properties.get("correlation_id"))
        if returned is not None:
            self._refused[returned.id] = f"unroutable: the broker has no queue {routing_key!r}"

    def _answered(self, delivery_tag: int, multiple: bool) -> list[Outgoing]:
        tags = [tag for tag in self._unconfirmed if tag <= delivery_tag] if multiple else [delivery_tag]
        return [self._unconfirmed.pop(tag) for tag in tags if tag in self._unconfirmed]

    def _depths(self, channel: Any, queues: Sequence[str]) -> dict[str, int]:
        self._refuse_while_blocked()
        # Of a queue that somebody deleted this raises; the connection that follows declares it again.
        return {queue: channel.queue_declare(queue, passive=True).message_count for queue in queues}


def publisher_for(app: Celery) -> Publisher:
    """The publisher for the broker that `BROKER_URL` names."""
    amqp = app.conf.broker_url.startswith(("amqp", "pyamqp"))
    return AmqpPublisher(app) if amqp else RedisPublisher(app)
