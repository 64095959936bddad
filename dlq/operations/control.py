"""What an operator does with an operation: start, pause, resume, cancel. Its row is locked meanwhile, so that each happens once.

A step sends each dead letter under a shared lock of that row: after a pause or a cancel has returned nothing more is sent.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from dlq.error_info import shortened
from dlq.operations import driver
from dlq.operations.models import ENDED, HELD, Kind, Operation, Progress
from dlq.operations.progress import Numbers, numbers, settle


class NotPossible(Exception):
    """This cannot be done with the operation as it is; the text says why."""


def start(
    operation: Operation,
    *,
    actor: str,
    reason: str = "",
    canary: int = 0,
    rate: int = 0,
    stop_above: int = 50,
    retries: int | None = None,
    force: bool = False,
    drive: bool = True,
) -> Operation:
    """Confirm a draft.

    `canary`: so many are sent first, the others after their outcome; default 0, no canary. `rate`: sent a second at most;
    default 0, no limit. `stop_above`: percent of those sent that may fail again before it stops by itself; default 50.
    `retries`, `force`: of each replay, see `dlq.replay.replay`. `drive`: whether a worker is asked to send; False for a caller
    that calls `driver.run` itself.

    Raises `NotPossible` when it is no draft, a discard has no reason, or a number is out of its range.
    """
    reason = shortened(reason or operation.reason).strip()
    if operation.kind == Kind.DISCARD and not reason:
        raise NotPossible("a discard needs a reason")
    if not 0 <= stop_above <= 100 or min(canary, rate, retries or 0) < 0:
        raise NotPossible("canary, rate and retries are at least 0, the share to stop at is from 0 to 100")
    return _change(
        operation.pk,
        "started",
        actor,
        (Progress.DRAFTED,),
        drive=drive,
        state=Progress.RUNNING,
        started_at=Now(),
        actor=operation.actor or actor,
        reason=reason,
        canary=0 if operation.kind == Kind.DISCARD else canary,
        rate=rate,
        stop_above=stop_above,
        retries=retries,
        force=force,
    )


def pause(operation_id: int, *, actor: str) -> Operation:
    """Send nothing more until it is resumed. Raises `NotPossible` unless it is running."""
    return _change(operation_id, "paused", actor, (Progress.RUNNING,), state=Progress.PAUSED)


def resume(operation_id: int, *, actor: str, drive: bool = True) -> Operation:
    """Go on, with a canary again where it has one, and judging by what is sent from now on.

    Of one that is running it only asks a worker again, for when the message that drives it was lost.
    """
    operation = Operation.objects.filter(pk=operation_id).first()
    if operation is not None and operation.state == Progress.RUNNING:
        driver.ask(operation)
        return operation
    return _change(
        operation_id,
        "resumed",
        actor,
        HELD,
        drive=drive,
        state=Progress.RUNNING,
        started_at=Now(),
        stopped_why="",
    )


def cancel(operation_id: int, *, actor: str) -> Numbers:
    """Send nothing more, ever. Returns what was sent already and what was not; what was sent is not taken back."""
    _change(
        operation_id,
        "cancelled",
        actor,
        [state for state in Progress if state not in ENDED],
        state=Progress.CANCELLED,
        ended_at=Now(),
    )
    settle(operation_id)
    return numbers(operation_id)


def _change(
    operation_id: int,
    what: str,
    by: str,
    allowed: Collection[str],
    *,
    drive: bool = False,
    **changes: Any,
) -> Operation:
    with transaction.atomic():
        operation = Operation.objects.select_for_update().filter(pk=operation_id).first()
        if operation is None:
            raise NotPossible(f"there is no operation {operation_id}")
        if operation.state not in allowed:
            raise NotPossible(f"operation {operation_id} is {operation.state}: it cannot be {what}")
        at = timezone.now().isoformat(timespec="seconds")
        history = [*operation.history, {"at": at, "what": what, "actor": by}]
        Operation.objects.filter(pk=operation_id).update(history=history, **changes)
        operation.refresh_from_db()
        if drive:
            driver.ask(operation)
    return operation
