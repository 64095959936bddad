"""Which message is running here, and what it has enqueued outside of a transaction."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from celery.exceptions import Retry

from outbox.rows import NewMessage


@dataclass
class Run:
    """One run of one message, as `outbox.current()` shows it to the task's body."""

    message_id: uuid.UUID
    generation: int
    #: Number of this run, from 1.
    attempt: int
    correlation_id: str
    #: Enqueued outside `atomic`, by id: written with the settlement, so that a crash and rerun adds no second child.
    children: dict[uuid.UUID, NewMessage] = field(default_factory=dict)
    #: What `retry(throw=False)` asked for: the body goes on, and the run ends with it.
    retry: Retry | None = None


_current: ContextVar[Run | None] = ContextVar("outbox_run", default=None)


def current() -> Run | None:
    """The message that is running in this context; None outside of one."""
    return _current.get()


@contextmanager
def running(run: Run) -> Iterator[Run]:
    reset = _current.set(run)
    try:
        yield run
    finally:
        _current.reset(reset)
