"""Which message is running here, what it has enqueued outside of a transaction, and its settlement with its last write."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from celery.exceptions import Retry
from django.db import connection, transaction

from outbox import tracing
from outbox.rows import NewMessage


@dataclass
class Run:
    """One run of one message, as `outbox.current()` shows it to the task's body."""

    message_id: uuid.UUID
    generation: int
    #: Number of this run, from 1.
    attempt: int
    correlation_id: str
    #: Of the HTTP request that it comes from, '' where it comes from none.
    request_id: str = ""
    #: Its W3C trace context, and that of what it enqueues; '' without one.
    traceparent: str = ""
    #: Enqueued outside `atomic`, by id: written with the settlement, so that a crash and rerun adds no second child.
    children: dict[uuid.UUID, NewMessage] = field(default_factory=dict)
    #: What `retry(throw=False)` asked for: the body goes on, and the run ends with it.
    retry: Retry | None = None
    #: Settles the message, with its children, in the caller's transaction; None where the task does not let `settling` do so.
    settle: Callable[[list[NewMessage]], bool] | None = None
    #: Whether `settling` has settled it; False when the claim was lost, None when it has not tried.
    settled: bool | None = None
    #: Whether its body runs in the transaction of its settlement.
    transactional: bool = False
    #: Blocks of `atomic` around its body; with one more it has opened its own.
    depth: int = 0


_current: ContextVar[Run | None] = ContextVar("outbox_run", default=None)
_request: ContextVar[tuple[str, str]] = ContextVar("outbox_request", default=("", ""))


def current() -> Run | None:
    """The message that is running in this context; None outside of one."""
    return _current.get()


@contextmanager
def running(run: Run) -> Iterator[Run]:
    run.depth = len(connection.atomic_blocks)
    reset = _current.set(run)
    try:
        yield run
    finally:
        _current.reset(reset)


@contextmanager
def settling() -> Iterator[Callable[[], None]]:
    """A transaction for the last write of a task that says `last_write_settles`; what it yields settles the message in it.

        with outbox.settling() as settle:
            if EmailLog.objects.filter(...).update(status="sent"):
                settle()

    One commit instead of two, and no run can end in between, with the write done and the message to be run again. If the
    claim was lost meanwhile the write stays, guarded by whatever guards it, and the run counts as overtaken. Nothing that
    has an effect may follow: the message does not run again for it. Elsewhere, inside of another transaction, and after
    `retry(throw=False)`, this is `transaction.atomic`, and the message settles as always.

    In a transactional task the block is a part of the transaction that there is. There it is for a last write that locks a
    row which others wait for: settled before it, the message leaves nothing between that lock and the commit.
    """
    run = current()
    if run is not None and len(connection.atomic_blocks) != run.depth:
        run = None
    settled: bool | None = None

    def settle() -> None:
        nonlocal settled
        if run is not None and run.settle is not None and run.retry is None:
            settled = run.settle(list(run.children.values()))

    with transaction.atomic(savepoint=run is None or not run.transactional):
        yield settle
    if run is not None:
        run.settled = settled


def in_own_transaction() -> bool:
    """Whether the caller has opened `atomic`; the one that wraps a Django TestCase does not count."""
    blocks: list[Any] = connection.atomic_blocks
    return connection.in_atomic_block and not blocks[-1]._from_testcase


@contextmanager
def in_request(request_id: str, traceparent: str = "") -> Iterator[None]:
    """Messages that are enqueued in this block come from the HTTP request with this id, and so does what they cause.

    `traceparent`: the request's W3C trace context. Both are headers of the message; `current()` has them, and the log line
    of an attempt.
    """
    reset = _request.set((request_id, traceparent))
    try:
        yield
    finally:
        _request.reset(reset)


def request_id() -> str:
    """The id of the HTTP request that the running message, or this block, comes from; '' without one."""
    run = _current.get()
    return run.request_id if run else _request.get()[0]


def traceparent() -> str:
    """The W3C trace context of what is enqueued or sent here; '' without one.

    With `OUTBOX_TRACING` it is the current span, else what the running message or this block brought.
    """
    run = _current.get()
    return tracing.traceparent() or (run.traceparent if run else _request.get()[1])
