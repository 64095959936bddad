"""Puts messages on the broker exactly as given, the way a foreign or broken producer does; on any transport."""

from __future__ import annotations

import json
import uuid
from typing import Any

from django.conf import settings

from config.celery import app

QUEUE = "default"


def publish(
    body: bytes | str,
    headers: dict[str, Any],
    *,
    content_type: Any = "application/json",
    content_encoding: Any = "utf-8",
    queue: str = QUEUE,
) -> None:
    """Publish one message without a look at it."""
    publish_all([(body, headers, content_type, content_encoding)], queue=queue)


def publish_all(messages: list[tuple[bytes | str, dict[str, Any], Any, Any]], *, queue: str = QUEUE) -> None:
    """Publish (body, headers, content type, content encoding) tuples over one connection."""
    with app.connection_for_write() as connection:
        channel = connection.default_channel
        for body, headers, content_type, content_encoding in messages:
            message = channel.prepare_message(
                # As bytes: the client library would encode a text by the content encoding that is under test.
                body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass"),
                content_type=content_type,
                content_encoding=content_encoding,
                headers=headers,
                properties={"delivery_mode": 2},
            )
            channel.basic_publish(message, exchange="", routing_key=queue)


def task_headers(task: str, /, **changes: Any) -> dict[str, Any]:
    """The headers that Celery itself sends (protocol 2), with changes; a value of ... leaves the header out."""
    message_id = str(uuid.uuid4())
    headers = {
        "lang": "py",
        "task": task,
        "id": message_id,
        "root_id": message_id,
        "parent_id": None,
        "group": None,
        "retries": 0,
        "eta": None,
        "expires": None,
        "timelimit": [None, None],
        "argsrepr": "()",
        "kwargsrepr": "{}",
        "origin": "outside@test",
        **changes,
    }
    return {name: value for name, value in headers.items() if value is not ...}


def send(
    task: str, /, *args: Any, _headers: dict[str, Any] | None = None, _queue: str = QUEUE, **kwargs: Any
) -> str:
    """Publish a good message that no outbox knows, as an outside producer does. Returns its id."""
    headers = task_headers(task, **(_headers or {}))
    publish(json.dumps([args, kwargs, None]), headers, queue=_queue)
    return str(headers["id"])


def depth(queue: str = QUEUE) -> int:
    """Messages that are ready in the queue."""
    with app.connection_for_read() as connection:
        declared = next(known for known in settings.CELERY_TASK_QUEUES if known.name == queue)
        # Not passive: on Redis a queue that is empty does not exist.
        return int(declared(connection.default_channel).queue_declare().message_count)
