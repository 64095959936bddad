"""How the worker receives: kombu's own transports, with what they leave open closed at the entrance.

`guard(connection)` gives one connection these classes, and changes nothing for any other of the process.

- Any broker: a message that is too large is cut before it is read, and inflated no further than the limit.
- Redis: an item that is no message's envelope is put into one (`dlq.worker.envelope`), and an acknowledgement that does not
  reach Redis does not hold its place in the prefetch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any

from kombu import message as base
from kombu.transport import redis

from dlq import conf
from dlq.message import CUT_HEADER, NO_ENVELOPE_HEADER, PREFIX_BYTES, cut
from dlq.worker import envelope
from dlq.worker.inflate import TooLarge, inflate

logger = logging.getLogger(__name__)


class NoEnvelope(Exception):
    """An item of a Redis list that is not what kombu puts there."""


def guard(connection: Any) -> Any:
    """Let this `kombu.Connection`, not yet connected, receive through the classes below. Returns it."""
    choose = connection.get_transport_cls
    # Not its attribute `transport_cls`, which a switch to the next URL sets anew.
    connection.get_transport_cls = lambda: _guarded(choose())
    return connection


@cache
def _guarded(transport: Any) -> Any:
    """A subclass of this transport; one of an unknown kind as it is."""
    if transport.driver_type == "redis":
        plain = transport.Channel
        channel = type("Channel", (_RedisChannel, plain), {"Message": _bounded(plain.Message), "QoS": QoS})
        return type(transport.__name__, (transport,), {"Channel": channel})
    if transport.driver_type == "amqp":
        plain = transport.Connection.Channel
        channel = type("Channel", (plain,), {"Message": _bounded(plain.Message)})
        connection = type("Connection", (transport.Connection,), {"Channel": channel})
        return type(transport.__name__, (transport,), {"Connection": connection})
    return transport


def _bounded(message: Any) -> Any:
    """The transport's own message class, with `_Bounded` between it and kombu's."""
    return type("Message", (message, _Bounded), {})


class _Bounded(base.Message):
    """A message that is looked at before it is unpacked. What is wrong is in `errors`, as kombu's own errors are."""

    def __init__(self, body: Any = None, headers: Any = None, **kwargs: Any) -> None:
        headers, max_bytes = headers or {}, conf.max_message_bytes()
        try:
            if NO_ENVELOPE_HEADER in headers:
                raise NoEnvelope(f"this is no message: {headers[NO_ENVELOPE_HEADER]}")
            if body is not None and len(body) > max_bytes:
                body = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else bytes(body)
                headers = {**headers, CUT_HEADER: cut(body)}
                body = body[:PREFIX_BYTES]
            if CUT_HEADER in headers:
                raise TooLarge(f"larger than DLQ_MAX_MESSAGE_BYTES ({max_bytes}): {headers[CUT_HEADER]}")
            if headers.get("compression"):
                body = inflate(body, headers["compression"], max_bytes)
                headers = {name: value for name, value in headers.items() if name != "compression"}
        except Exception as exc:
            self.errors = [(type(exc), exc, exc.__traceback__)]
        super().__init__(body=body, headers=headers, **kwargs)


class QoS(redis.QoS):
    """What kombu 5.7 holds against a worker when an acknowledgement does not reach Redis.

    It keeps the message's place in the prefetch until it connects anew. A Redis that is silent for longer than
    `socket_timeout` keeps its connections, so that would be never: a worker of one process would take nothing more,
    and say nothing. And when a run ends after its connection was lost and replaced, the closed channel raises
    AttributeError, which ends the worker.

    What was not acknowledged Redis redelivers, at once or after the visibility timeout; the copy finds its row settled.
    """

    @cached_property
    def _client(self) -> Any:
        return self.channel._create_client()

    @contextmanager
    def pipe_or_acquire(self, pipe: Any = None, client: Any = None) -> Iterator[Any]:
        """kombu makes a client for each note and each acknowledgement: a tenth of what the worker's parent does."""
        yield pipe or (client or self._client).pipeline()

    def ack(self, delivery_tag: str) -> None:
        self._let_go(super().ack, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        self._let_go(super().reject, delivery_tag, requeue=requeue)

    def _let_go(self, say: Callable[..., None], delivery_tag: str, **options: bool) -> None:
        if self.channel.closed:
            logger.info("A message of a lost connection ended: Redis delivers it again")
            return
        try:
            say(delivery_tag, **options)
        except Exception:
            self._quick_ack(delivery_tag)
            raise

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        """kombu's, but for an entry that it cannot read: garbage goes to a queue and becomes a dead letter there.

        It would raise, at each attempt and at each start of a worker, and restore none of the entries behind it.
        """

        def restore(pipe: Any) -> None:
            kept = pipe.hget(self.unacked_key, tag)
            pipe.multi()
            entry = kept and envelope.unacked(kept, min(self.channel.active_queues, default=""))
            if entry and not entry[2]:
                return  # garbage, while nothing is consumed: at the next attempt there is a queue for it
            self._remove_from_indices(tag, pipe)
            if entry:
                self.channel._do_restore_message(*entry, pipe, leftmost)

        with self.channel.conn_or_acquire(client) as connected:
            connected.transaction(restore, self.unacked_key)


class _RedisChannel:
    """Mixed into the transport's Channel."""

    def _create_client(self, asynchronous: bool = False) -> Any:
        client = super()._create_client(asynchronous)  # type: ignore[misc]
        if asynchronous:
            receive = client.parse_response

            def parse_response(connection: Any, command_name: str, **options: Any) -> Any:
                answer = receive(connection, command_name, **options)
                if command_name != "BRPOP" or not answer:
                    return answer
                key, item = answer
                queue = key.decode().rsplit(self.sep, 1)[0]
                return key, envelope.checked(item, queue, conf.max_message_bytes())

            client.parse_response = parse_response
        return client
