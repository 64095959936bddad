"""Publishing on RabbitMQ: confirms, awaited once a batch; `mandatory`, so that the broker returns an unroutable message.

An error that the broker reports for one queue counts for that queue alone. Such an error closes the AMQP channel that
asked, so questions about queues have a channel of their own, and publishing does not notice.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Sequence
from typing import Any

from amqp.exceptions import ChannelError
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError

from outbox.broker.envelope import Outgoing
from outbox.broker.publisher import BrokerUnavailable, Publisher, QueueUnusable

#: How long the broker may take to confirm a whole batch, and to answer anything else.
CONFIRM_TIMEOUT_S = 30.0
#: How often it is looked whether a queue is still the one that Celery's settings describe.
DECLARE_EVERY_S = 5.0


class AmqpPublisher(Publisher):
    """One connection with two channels: one publishes, the other declares queues and asks for their depths."""

    _blocked = ""

    def _prepare(self, channel: Any) -> None:
        # Delivery tag -> message, for what is not confirmed yet. The broker counts tags from 1 on each channel.
        self._unconfirmed: dict[int, Outgoing] = {}
        self._by_message_id: dict[str, Outgoing] = {}
        self._returned: set[int] = set()
        self._nacked = 0
        self._tag = 0
        self._blocked = ""
        # `read_timeout` does not end every wait: py-amqp repeats a read that timed out in the middle of a frame.
        channel.connection.transport.sock.settimeout(CONFIRM_TIMEOUT_S)
        channel.connection.on_blocked = self._on_blocked
        channel.connection.on_unblocked = self._on_unblocked
        self._asking = channel.connection.channel()
        self._declarations = dict(self._needed_queues())
        self._declared_at: dict[str, float] = {}
        for name in self._declarations:
            self._depth_or_fault(name)
        channel.confirm_select()
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        channel.events["basic_return"].add(self._on_return)

    def _needed_queues(self) -> Iterator[tuple[str, Queue]]:
        """All that Celery's settings name, and those that they are dead-lettered to."""
        for queue in self._app.amqp.queues.values():
            if dead_letters := (queue.queue_arguments or {}).get("x-dead-letter-routing-key"):
                # What is dead-lettered to a queue that does not exist is dropped, or never leaves. Classic, because a
                # quorum queue of RabbitMQ 4 drops what comes back more often than its limit (20 by default), and this
                # is where nothing may be dropped; 3.x knows no way to say that there is no limit.
                kind = {"x-queue-type": "classic"}
                yield dead_letters, Queue(dead_letters, Exchange(""), queue_arguments=kind)
            yield queue.name, queue

    def _depth(self, name: str) -> int:
        """The depth by a passive declaration: a queue that was deleted is an error, and declared at the next try.

        Not at once: only by a missing queue does a worker learn that nothing is sent to it any more. Every
        DECLARE_EVERY_S the queue is declared, which finds one that exists with other arguments: it would take messages
        that no worker can read.
        """
        known: Any = self._declarations.get(name)
        if known is None or known.no_declare:
            return int(self._asking.queue_declare(name, passive=True).message_count)
        queue, counts, now = known(self._asking), list[int](), time.monotonic()
        queue.on_declared = lambda _, messages, consumers: counts.append(messages)
        declared_at = self._declared_at.get(name)
        if declared_at is None:
            queue.declare()  # with its exchange and bindings
        else:
            queue.queue_declare(passive=now < declared_at + DECLARE_EVERY_S)
        if declared_at is None or now >= declared_at + DECLARE_EVERY_S:
            self._declared_at[name] = now
        return counts[0]

    def _depth_or_fault(self, name: str) -> int | None:
        """None, and the reason in `unusable`, where the broker's answer for this queue is an error."""
        try:
            return self._depth(name)
        except ChannelError as error:
            # py-amqp has opened the channel again already.
            self._declared_at.pop(name, None)
            self.unusable[name] = _reason(error)
            return None

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
        try:
            refused = self._publish(channel, batch)
            self._await_confirms(channel)
        except ChannelError as error:
            # It has ended this channel, with what was not confirmed yet.
            self.close()
            raise QueueUnusable(batch[0].queue, _reason(error), self._confirmed) from error
        if self._returned:
            queue = next(message.queue for message in batch if message.id in self._returned)
            raise QueueUnusable(queue, "unroutable: the broker has no such queue", self._confirmed)
        if self._nacked:
            # No fault of the messages: a full queue, one without its majority, a broken disk.
            reason = f"the broker refused (nack) {self._nacked} of {len(batch)} messages"
            raise QueueUnusable(batch[0].queue, reason, self._confirmed)
        return refused

    def _publish(self, channel: Any, batch: Sequence[Outgoing]) -> dict[int, str]:
        """Send without waiting; returns row id -> reason for what cannot be said in AMQP."""
        refused = {}
        self._returned, self._nacked = set(), 0
        self._by_message_id = {message.message_id: message for message in batch}
        for message in batch:
            # Blocked in the middle of the batch: what was sent is in the broker's buffers, and is delivered later.
            self._refuse_while_blocked()
            try:
                prepared = self._prepared(channel, message)
            except (
                Exception
            ) as error:  # Only the row decides whether this works: one that does not is refused.
                refused[message.id] = f"not encodable: {type(error).__name__}: {error}"
                continue
            try:
                # `basic_publish` would, by `confirm_publish`, wait for the confirm of each.
                channel._basic_publish(prepared, exchange="", routing_key=message.queue, mandatory=True)
            except struct.error as error:
                # A header with an integer of more than 64 bits; nothing was sent of it.
                refused[message.id] = f"not encodable: {error}"
            else:
                self._tag += 1
                self._unconfirmed[self._tag] = message
        return refused

    def _await_confirms(self, channel: Any) -> None:
        deadline = time.monotonic() + CONFIRM_TIMEOUT_S
        while self._unconfirmed:
            self._refuse_while_blocked()
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise OperationalError(
                    f"no confirm for {len(self._unconfirmed)} messages in {CONFIRM_TIMEOUT_S:g} s"
                )
            channel.connection.drain_events(timeout=remaining)

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
            raise BrokerUnavailable(f"the broker accepts no messages: {self._blocked}", self._confirmed)

    def _on_blocked(self, reason: str) -> None:
        self._blocked = reason or "connection.blocked"

    def _on_unblocked(self) -> None:
        self._blocked = ""

    def _on_ack(self, delivery_tag: int, multiple: bool) -> None:
        self._confirmed |= {message.id for message in self._answered(delivery_tag, multiple)} - self._returned

    def _on_nack(self, delivery_tag: int, multiple: bool) -> None:
        self._nacked += len(self._answered(delivery_tag, multiple))

    def _on_return(self, exception: Any, exchange: str, routing_key: str, message: Any) -> None:
        # It comes before the message's ack, which says only that the broker is done with it.
        returned = self._by_message_id.get(message.properties.get("correlation_id"))
        if returned is not None:
            self._returned.add(returned.id)

    def _answered(self, delivery_tag: int, multiple: bool) -> list[Outgoing]:
        tags = [tag for tag in self._unconfirmed if tag <= delivery_tag] if multiple else [delivery_tag]
        return [self._unconfirmed.pop(tag) for tag in tags if tag in self._unconfirmed]

    def _depths(self, channel: Any, queues: Sequence[str]) -> dict[str, int]:
        self._refuse_while_blocked()
        answers = {queue: self._depth_or_fault(queue) for queue in queues}
        return {queue: depth for queue, depth in answers.items() if depth is not None}


def _reason(error: ChannelError) -> str:
    return str(error.reply_text or error)
