"""Messages for a test to work on, and a second connection to work on them."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection

import outbox
from outbox import claims
from outbox.models import OutboxMessage
from outbox.relay import queries
from tests.support import tasks


def row(message_id: uuid.UUID) -> OutboxMessage:
    return OutboxMessage.objects.get(message_id=message_id)


def published(task: Any = None, **options: Any) -> uuid.UUID:
    message_id = outbox.enqueue(task or tasks.note.s("a"), **options)
    queries.mark("default", 100)
    return message_id


def claim(message_id: uuid.UUID, *, generation: int = 1, lease_s: float = 60, worker: str = "w1") -> Any:
    return claims.claim(message_id, generation, lease_s=lease_s, worker=worker, max_deliveries=5)


@contextmanager
def elsewhere(step: Callable[[], Any]) -> Iterator[threading.Event]:
    """Run `step` in another thread, on a connection of its own; raises here what it raised there."""
    failure: list[BaseException] = []
    go = threading.Event()

    def run() -> None:
        try:
            step()
        except BaseException as error:
            failure.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    yield go
    thread.join(30)
    assert not thread.is_alive()
    if failure:
        raise failure[0]


@contextmanager
def asked_for(task: Any, **request: Any) -> Iterator[None]:
    task.push_request(**request)
    try:
        yield
    finally:
        task.pop_request()
