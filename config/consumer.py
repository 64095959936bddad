"""The worker's consumer, as `worker_consumer` names it: the dead-letter desk's, with repairs of Celery's and kombu's."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar

from celery.worker import consumer as celery_consumer
from kombu.common import ignore_errors
from kombu.transport import redis

from dlq import consumer

logger = logging.getLogger(__name__)


class QoS(redis.QoS):
    """What kombu 5.7 holds against a worker when an acknowledgement does not reach Redis.

    It keeps the message's place in the prefetch until it connects anew. A Redis that is silent for longer than
    `socket_timeout` keeps its connections, so that would be never: a worker of one process would take nothing more,
    and say nothing. And when a run ends after its connection was lost and replaced, the closed channel raises
    AttributeError, which ends the worker.

    What Redis was not told it gives out again, at once or after the visibility timeout; the copy finds its row settled.
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
            logger.info("A message of a lost connection ended: Redis gives it out again")
            return
        try:
            say(delivery_tag, **options)
        except Exception:
            self._quick_ack(delivery_tag)
            raise


redis.Channel.QoS = QoS


class Consumer(consumer.Consumer):
    """Survives the loss of Redis with work in hand, and declares no queues for delays.

    Delays: on quorum queues Celery's native delayed delivery would declare 28 queues and exchanges for messages with
    an ETA. Here none reaches the broker: delays are rows of the outbox.
    """

    class Blueprint(celery_consumer.Consumer.Blueprint):  # type: ignore[valid-type,misc]
        default_steps: ClassVar[list[str]] = [
            step
            for step in celery_consumer.Consumer.Blueprint.default_steps
            if not step.endswith(":DelayedDelivery")
        ]

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """The broker is away: drop the connection, and connect again.

        Celery closes the connection twice. On Redis the first attempt fails half way, in reading the answer that will
        not come; it leaves the channel open and its transport dismantled. With a message in hand, which closing wants
        to restore, the second attempt then raises AttributeError, and that ends the worker (Celery 5.7, kombu 5.7).
        """
        connection = self.connection
        if connection is not None and connection.transport.driver_type == "redis":
            # Both attempts at once, while the transport is whole. Every wait in it ends by `socket_timeout`.
            ignore_errors(connection, connection.close)
        super().on_connection_error_after_connected(exc)
