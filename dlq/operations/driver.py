"""What calls `step` until an operation is at its end: a task that asks for itself again, or a caller that waits.

Neither beat nor a process of its own is needed. Each message names the turn that it is for, so that of two that ask for
one operation one goes on; where the message of the next turn is lost with its broker, `revive` asks again.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from time import sleep
from typing import Any

from celery import shared_task
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import F, Q, Value
from django.db.models.functions import Now

from dlq import journal
from dlq.operations.models import Operation, Outcome, Progress
from dlq.operations.step import step

#: After so long without a step the message of the next one counts as lost.
STALLED_AFTER = timedelta(minutes=5)


@shared_task(
    acks_late=True,
    autoretry_for=(OperationalError, InterfaceError),
    retry_backoff=True,
    max_retries=10,
)
def advance(operation_id: int, turn: int) -> None:
    """One step of the operation, and the message of the next one."""
    if not Operation.objects.filter(pk=operation_id, turn=turn).exists():
        return  # Another message has gone on already.
    wait_s = step(operation_id)
    with transaction.atomic():
        mine = Operation.objects.filter(pk=operation_id, turn=turn).update(turn=F("turn") + 1)
        if mine and wait_s is not None:
            _send(operation_id, turn + 1, wait_s)


def ask(operation: Operation) -> None:
    """Have a worker take the next step, in the caller's transaction."""
    _send(operation.pk, operation.turn, 0)


def _send(operation_id: int, turn: int, wait_s: float) -> None:
    task: Any = advance  # Celery's Task for Django, which celery-types does not know.
    task.apply_async_on_commit(args=(operation_id, turn), countdown=wait_s or None)


def held_back() -> str:
    """The paused queue or task for whose resume the next step by a worker waits, or ""."""
    # A route of a project may name an exchange instead of a queue.
    queue = advance.app.amqp.router.route({}, advance.name).get("queue")
    return journal.held_back()(queue.name if queue else "", advance.name, True)


def revive() -> int:
    """Ask for a step of each operation that is to go on and had none for `STALLED_AFTER`; returns how many."""
    long_ago = Now() - Value(STALLED_AFTER)
    stalled = Operation.objects.filter(
        Q(stepped_at=None, started_at__lt=long_ago) | Q(stepped_at__lt=long_ago),
        state=Progress.RUNNING,
    )
    for operation in (found := list(stalled)):
        ask(operation)
    return len(found)


def run(operation_id: int, *, report: Callable[[], None] | None = None, wait: bool = True) -> None:
    """Take its steps here until it ends, or until it is paused or stopped.

    `wait`: False to return as soon as everything is sent, whatever comes of it. `report` is called after each step.
    """
    while (wait_s := step(operation_id)) is not None:
        if report:
            report()
        operation = Operation.objects.get(pk=operation_id)
        if operation.state != Progress.RUNNING:
            return
        if not wait and not operation.items.filter(outcome=Outcome.WAITING).exists():
            return
        sleep(min(wait_s, 1.0))
    if report:
        report()
