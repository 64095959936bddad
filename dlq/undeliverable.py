"""What RabbitMQ itself gave up becomes dead letters: the safety net below everything that dlq/ does in a worker.

A message whose every delivery ends a whole worker, before that could record anything, comes back for ever. With
`x-delivery-limit` and a dead-letter exchange RabbitMQ puts it aside instead; without the exchange it would drop it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from celery import current_app, shared_task
from kombu.serialization import prepare_accept_content

from dlq import conf
from dlq.message import BROKER_HEADERS, RawMessage, text
from dlq.models import Cause
from dlq.worker.failure import Ending
from dlq.worker.transport import guard

#: What RabbitMQ adds when it puts a message aside. The dead letter keeps the message as it was sent.
_ADDED = {"x-death", *(f"x-first-death-{part}" for part in ("exchange", "queue", "reason")), *BROKER_HEADERS}


class Undeliverable(Exception):
    """RabbitMQ returned the message to its queue too often, or a consumer rejected it for good."""


@shared_task
def collect() -> int:
    """Make a dead letter of each message in the queue `DLQ_UNDELIVERABLE`; returns how many there were.

    Each is acknowledged after it is recorded, and recording twice is recording once.
    """
    collected = 0
    with guard(current_app.connection_for_read()) as connection:
        if connection.transport.driver_type != "amqp":
            return 0
        channel: Any = connection.default_channel
        try:
            # Not Queue.get, which raises for a body that cannot be decompressed: that message would come first again
            # each time, and hold up all behind it.
            while (received := channel.basic_get(conf.undeliverable())) is not None:
                message = channel.message_to_python(received)
                message.accept = prepare_accept_content(["json"])
                _record(message)
                message.ack()
                collected += 1
        except connection.channel_errors as error:
            # Before the first relay has connected there is no such queue.
            if getattr(error, "code", None) != 404:
                raise
    return collected


def _record(message: Any) -> None:
    # RabbitMQ leaves these alone where the producer has set them, to whatever.
    origin, reason = (text(message.headers.get(f"x-first-death-{part}", "")) for part in ("queue", "reason"))
    raw = RawMessage.of(message)
    raw = replace(
        raw,
        headers={name: value for name, value in raw.headers.items() if name not in _ADDED},
        # Where a replay sends it: back to where it came from.
        delivery_info={**raw.delivery_info, "routing_key": origin},
    )
    try:
        args, kwargs, _ = message.decode()
    except Exception:
        args = kwargs = None  # The dead letter keeps the body as it is.
    error = f"RabbitMQ gave it up ({reason.replace('_', ' ') or 'no reason'}) in queue {origin!r}"
    task = raw.headers.get("task")
    Ending(
        raw=raw,
        # With the dead letter that it was sent again from, which is no part of the message.
        fields=message.headers,
        exception=Undeliverable(error),
        error=error,
        cause=Cause.LOST,
        task=task if isinstance(task, str) else "",
        args=args,
        kwargs=kwargs,
    ).record(last_try=True)
