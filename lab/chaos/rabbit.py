"""What an experiment does inside RabbitMQ, over AMQP: it has no lists to reach into, so it consumes and publishes."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import amqp

from lab.stack.errors import StackError
from lab.stack.rabbitmq import RabbitMQ

T = TypeVar("T")


class RabbitBroker:
    """A connection past the proxy, made anew after the server was killed. Raises OSError while it is down."""

    reorders_in_place = False

    def __init__(self, server: RabbitMQ, queues: tuple[str, ...]):
        self.queues = queues
        self.server = server
        self._connection: amqp.Connection | None = None

    def depths(self) -> dict[str, int]:
        def ask(channel: Any) -> dict[str, int]:
            return {queue: channel.queue_declare(queue, passive=True).message_count for queue in self.queues}

        return self._on_channel(ask)

    def in_hand(self) -> int:
        return 0  # AMQP does not tell; the system counts the tasks that run

    def copy(self, dice: random.Random, most: int) -> int:
        """Each message that is taken for it is published once more and then given back."""

        def act(channel: Any) -> int:
            taken = self._take(channel, most)
            for queue, message in taken:
                channel.basic_publish(_again(message), routing_key=queue)
            for _, message in taken:
                channel.basic_reject(message.delivery_tag, requeue=True)
            return len(taken)

        return self._on_channel(act)

    def reorder(self, dice: random.Random) -> int:
        """Published again in another order, and only then taken out: a crash in between is a duplicate."""

        def act(channel: Any) -> int:
            taken = self._take(channel, 100)
            if len(taken) > 1:
                for queue, message in dice.sample(taken, len(taken)):
                    channel.basic_publish(_again(message), routing_key=queue)
                for _, message in taken:
                    channel.basic_ack(message.delivery_tag)
                return len(taken)
            for _, message in taken:
                channel.basic_reject(message.delivery_tag, requeue=True)
            return 0

        return self._on_channel(act)

    def inject(self, body: bytes, headers: dict[str, Any], content_type: str, queue: str) -> None:
        message = amqp.Message(
            body,
            content_type=content_type,
            content_encoding="utf-8",
            delivery_mode=2,
            correlation_id=headers.get("id"),
            application_headers=headers,
        )
        self._on_channel(lambda channel: channel.basic_publish(message, routing_key=queue))

    def inject_raw(self, item: bytes, queue: str) -> None:
        # AMQP has an envelope always; without properties and headers it says nothing about the bytes.
        self._on_channel(lambda channel: channel.basic_publish(amqp.Message(item), routing_key=queue))

    def spoil(self, queue: str) -> None:
        # A classic queue, as a deployment from before the quorum queues leaves one: declaring it otherwise is an error.
        def act(channel: Any) -> None:
            channel.queue_delete(queue)
            channel.queue_declare(queue, durable=True, auto_delete=False)

        self._on_channel(act)

    def mend(self, queue: str) -> None:
        self._on_channel(lambda channel: channel.queue_delete(queue))

    def purge(self) -> int:
        """Empty every queue; returns how many messages are gone."""
        return self._on_channel(lambda channel: sum(channel.queue_purge(queue) for queue in self.queues))

    def kill(self) -> None:
        self.server.signal(signal.SIGKILL)

    def _take(self, channel: Any, most: int) -> list[tuple[str, Any]]:
        taken: list[tuple[str, Any]] = []
        for queue in self.queues:
            while len(taken) < most and (message := channel.basic_get(queue)) is not None:
                taken.append((queue, message))
        return taken

    def _on_channel(self, act: Callable[[Any], T]) -> T:
        try:
            if self._connection is None or not self._connection.connected:
                self._connection = self._connect()
            channel = self._connection.channel()
            try:
                return act(channel)
            finally:
                channel.close()
        except (amqp.AMQPError, OSError) as error:
            self._connection = None
            raise OSError(f"RabbitMQ is down: {error}") from error

    def _connect(self) -> amqp.Connection:
        url = urlsplit(self.server.url)
        connection = amqp.Connection(
            f"{url.hostname}:{url.port}",
            userid=url.username or "",
            password=url.password or "",
            virtual_host=url.path.lstrip("/"),
            connect_timeout=2,
            read_timeout=5,
            write_timeout=5,
        )
        connection.connect()
        return connection


class Keeper(threading.Thread):
    """Starts the server and starts it again when it was killed, which takes Erlang longer than the run can wait.

    One thread for the whole run: the kernel ends the server with the thread that started it.
    """

    def __init__(self, server: RabbitMQ):
        super().__init__(name="rabbitmq-keeper", daemon=True)
        self._server = server
        self._ready = threading.Event()
        self._enough = threading.Event()
        self._problem: StackError | None = None

    def begin(self) -> None:
        """Start it and wait until it answers. Raises StackError."""
        self.start()
        self._ready.wait()
        if self._problem is not None:
            raise self._problem

    def end(self) -> None:
        self._enough.set()
        self.join()

    def run(self) -> None:
        try:
            self._server.start(wipe=True)
        except StackError as problem:
            self._problem = problem
        self._ready.set()
        is_up = True
        while self._problem is None and not self._enough.wait(0.2):
            if is_up and not self._server.died():
                continue
            is_up = False
            # A boot after a kill may hang or be too slow on a busy machine; then it has been stopped: once more.
            with contextlib.suppress(StackError):
                self._server.start()
                is_up = True
        self._server.stop()


def _again(message: Any) -> amqp.Message:
    return amqp.Message(message.body, **message.properties)
