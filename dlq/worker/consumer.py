"""The choke point for what never becomes a request: Celery's Consumer, with every refusal recorded first.

A message that Celery cannot read is dropped with a log line, or ends the worker. Here it is checked before
Celery's handler sees it, kept whole as a dead letter, and only then acknowledged.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import Any

from celery import signals
from celery.exceptions import NotRegistered, WorkerLostError
from celery.worker import consumer as celery_consumer

from dlq import conf, journal, record
from dlq.message import RawMessage, message_key, text
from dlq.models import Cause
from dlq.worker import transport, validation
from dlq.worker.failure import Ending
from dlq.worker.pending_acks import shelf

logger = logging.getLogger(__name__)


class Consumer(celery_consumer.Consumer):
    """Set as `worker_consumer`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        shelf.use_timer(self.timer)

    def connection_for_read(self, heartbeat: Any = None) -> Any:
        """The connection that the worker receives by; the messages that reach the handler came through its guard."""
        return self.ensure_connected(transport.guard(self.app.connection_for_read(heartbeat=heartbeat)))

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """Celery's handler, behind a check that keeps from it what it cannot survive."""
        handle = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: Any) -> None:
            try:
                validation.check(message)
            except validation.Malformed as exc:
                self.park(message, exc, Cause.MALFORMED)
            except Exception as exc:
                self.park(message, exc, Cause.UNDECODABLE)
            else:
                if message.delivery_info.get("redelivered") and not _is_journalled(message):
                    self._count_lost_run(handle, message)
                else:
                    self._handle(handle, message)

        return on_task_received

    def _count_lost_run(self, handle: Callable[[Any], None], message: Any) -> None:
        """An earlier delivery of this message did not end: count that before the next run, or dead-letter the message.

        No other process could count a run that took the whole worker down, this parent with it: the broker would
        offer the message to one worker after the other for ever. A journal counts its own messages' runs.
        """
        ending = self._ending(
            message, WorkerLostError("redelivered too often: no run reached its end"), Cause.LOST
        )
        key, _ = message_key(ending.fields, ending.raw.digest)
        connection, dead = self.connection, False

        def count() -> None:
            nonlocal dead
            if record.count_lost_run(key) >= conf.max_lost_runs():
                ending.record()
                dead = True

        def go_on() -> None:
            if dead:
                self._acknowledge(message)
            elif self.connection is connection:
                # Else the broker has redelivered it meanwhile, and the new copy runs instead of this one.
                self._handle(handle, message)

        shelf.put(count, go_on)

    def _handle(self, handle: Callable[[Any], None], message: Any) -> None:
        """The last safety net: whatever Celery's handler raises for one message must not end the worker."""
        slots = getattr(self.controller, "semaphore", None)
        free = slots.value if slots else 0
        try:
            handle(message)
        except Exception as exc:
            # kombu counts KeyError among the connection errors: one message would make the worker reconnect
            # for ever.
            if isinstance(exc, self.connection_errors) and not isinstance(exc, KeyError):
                raise
            # It was checked: the message is as it should be, and a replay of it is worth a try.
            self.park(message, exc, Cause.FAILED)
            if slots and slots.value < free:
                # Its slot of the pool was taken, and no process will give it back.
                slots.release()

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """The body could not be decompressed or decoded, or is too large for that, or it is no message at all."""
        cause = Cause.MALFORMED if isinstance(exc, transport.NoEnvelope) else Cause.UNDECODABLE
        self.park(message, exc, cause)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """No task is named."""
        self.park(message, validation.Malformed("no task is named"), Cause.MALFORMED)
        signals.task_rejected.send(sender=self, message=message, exc=None)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """The task is not registered here: renamed or removed by a deploy, or sent to the wrong queue."""
        name = exc.args[0] if exc.args else ""
        self.park(message, NotRegistered(name), Cause.UNKNOWN_TASK)
        signals.task_unknown.send(
            sender=self, message=message, exc=exc, name=name, id=message.headers.get("id")
        )

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Celery's own checks refused it."""
        self.park(message, exc, Cause.MALFORMED)
        signals.task_rejected.send(sender=self, message=message, exc=exc)

    def park(self, message: Any, exc: Exception, cause: Cause) -> None:
        """Record the message as it is, then acknowledge it; hold it while it cannot be recorded."""
        ending = self._ending(message, exc, cause)
        logger.error("A message becomes a dead letter (%s): %s", cause, ending, extra=ending.log_fields())
        ending.conclude(
            acknowledge=lambda: self._acknowledge(message),
            requeue=lambda: message.reject_log_error(logger, self.connection_errors, requeue=True),
        )

    def _acknowledge(self, message: Any) -> None:
        message.ack_log_error(logger, self.connection_errors)

    def _ending(self, message: Any, exc: Exception, cause: Cause) -> Ending:
        fields, args, kwargs = _parts(message)
        return Ending(
            raw=RawMessage.of(message),
            fields=fields,
            exception=exc,
            error=text(exc),
            cause=cause,
            traceback="".join(traceback.format_exception(exc)),
            task=fields["task"] if isinstance(fields.get("task"), str) else "",
            args=args,
            kwargs=kwargs,
            worker=self.hostname,
        )


def _is_journalled(message: Any) -> bool:
    return journal.generation(message.headers) is not None


def _parts(message: Any) -> tuple[dict[str, Any], Any, Any]:
    """What can be told about a broken message: its fields, args and kwargs, each as far as it is readable."""
    fields: dict[str, Any] = dict(message.headers)
    payload = message._decoded_cache
    if isinstance(payload, dict):
        return {**payload, **fields}, payload.get("args"), payload.get("kwargs")
    if isinstance(payload, (list, tuple)) and len(payload) == 3:
        return fields, payload[0], payload[1]
    return fields, None, None
