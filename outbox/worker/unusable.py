"""A worker that reads several queues goes on without those that its broker refuses, until they are repaired.

Celery declares and reads all of them as one: one key of the wrong type on Redis, or one queue that exists with other
arguments on RabbitMQ, and the worker does nothing but connect anew, several times a second, without any work.
"""

from __future__ import annotations

import logging
from typing import Any

from celery import Celery

logger = logging.getLogger(__name__)

#: How often a worker looks whether a queue that it left out is repaired.
RETRY_EVERY_S = 2.0


def unusable(app: Celery, names: list[str]) -> dict[str, str]:
    """Queue -> reason for each of these that the broker refuses. Raises what a lost connection raises."""
    found = {}
    with app.connection_for_read() as connection:
        connection.ensure_connection(max_retries=1)
        for name in names:
            # A channel for each: AMQP ends the one on which an error is the answer.
            channel: Any = connection.channel()
            try:
                # On Redis this asks for the lengths of the lists; there is nothing to declare.
                app.amqp.queues[name](channel).declare()
            except connection.channel_errors as error:
                found[name] = str(getattr(error, "reply_text", None) or error)
            else:
                channel.close()
    return found


class UsableQueues:
    """A mixin for Celery's Consumer: before it reads, it leaves out what cannot be read, and takes it up again later."""

    app: Celery
    timer: Any
    _left_out: dict[str, str]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._left_out = {}
        super().__init__(*args, **kwargs)

    def connect(self) -> Any:
        connection = super().connect()  # type: ignore[misc]
        queues = self.app.amqp.queues
        for name in self._left_out:
            queues.select_add(queues[name])
        found = unusable(self.app, list(queues.consume_from))
        for name, reason in found.items():
            queues.deselect([name])
            if self._left_out.get(name) != reason:
                logger.error("Queue %s is unusable, this worker goes on without it: %s", name, reason)
        self._left_out = found
        if found:
            # Celery removes the timers of a connection that is lost, and then we come here again.
            self.timer.call_repeatedly(RETRY_EVERY_S, self._look_again)
        return connection

    def _look_again(self) -> None:
        if not self._left_out:
            return
        try:
            still = unusable(self.app, list(self._left_out))
        except Exception as error:  # The broker is down: reading from it finds that out, and connects anew.
            logger.info("Unusable queues could not be read: %s", error)
            return
        for name in [name for name in self._left_out if name not in still]:
            self.add_task_queue(name)  # type: ignore[attr-defined]
            del self._left_out[name]
            logger.warning("Queue %s is usable again", name)
