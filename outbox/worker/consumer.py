"""The worker's consumer, as `worker_consumer` names it: Celery's with repairs, or that of the dead-letter app with them.

Only a worker imports it, when the apps are ready.
"""

from typing import Any, ClassVar

from celery.exceptions import NotRegistered
from celery.utils.imports import symbol_by_name
from celery.worker import consumer as celery_consumer
from kombu.common import ignore_errors

from outbox import dead_letters
from outbox.worker import endings
from outbox.worker.unusable import UsableQueues


class RowConsumer(celery_consumer.Consumer):
    """Notes in its row that a message's task is not registered in this worker. Celery only drops the copy."""

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        endings.record(message.headers, NotRegistered(*exc.args))
        super().on_unknown_task(body, message, exc)


_hooks = dead_letters.hooks()
_Base: Any = symbol_by_name(_hooks.CONSUMER) if _hooks else RowConsumer


class Consumer(UsableQueues, _Base):
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
        """The broker is down: drop the connection, and connect again.

        Celery closes the connection twice. On Redis the first attempt fails half way, in reading the answer that will
        not come; it leaves the channel open and its transport dismantled. With a message in hand, which closing wants
        to restore, the second attempt then raises AttributeError, and that ends the worker (Celery 5.7, kombu 5.7).
        """
        connection = self.connection
        if connection is not None and connection.transport.driver_type == "redis":
            # Both attempts at once, while the transport is whole. Every wait in it ends by `socket_timeout`.
            ignore_errors(connection, connection.close)
        super().on_connection_error_after_connected(exc)
