"""One step of an operation: write down what became known, judge it, and send as many as are due.

Each dead letter is sent in a transaction of its own, with its item: a process that is killed at any point leaves no dead
letter that is sent and counts as waiting, and the next step sends none twice.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from time import monotonic
from typing import Any

from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import BooleanField, ExpressionWrapper, F, Q, Value
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from dlq import journal, replay
from dlq.error_info import shortened
from dlq.operations.models import Kind, Operation, OperationItem, Outcome, Progress
from dlq.operations.progress import Numbers, numbers, settle

#: Sent in one step at most, and seconds that it may take: a step is one message, with a time limit.
BATCH, WITHIN_S = 1_000, 2.0
#: A step that sends holds the operation for so long; one that is killed delays the next step by no more.
LEASE = timedelta(seconds=5)
#: Outcomes that must be known before a share of them says anything, where there is no canary.
JUDGED_FROM = 10
#: Seconds whose rate may be sent at once after a step came late.
CAUGHT_UP_S = 2.0
#: Seconds between two steps while something is to be sent, and at most while only outcomes are awaited.
SOON_S, LATER_S = 1.0, 60.0

logger = logging.getLogger(__name__)

_NEXT = f"""
    SELECT item.id, item.dead_letter_id, item.failures
    FROM dlq_operationitem item JOIN dlq_operation operation ON operation.id = item.operation_id
    WHERE item.operation_id = %s AND item.outcome = '{Outcome.WAITING}' AND operation.state = '{Progress.RUNNING}'
    ORDER BY item.id LIMIT 1
    FOR UPDATE OF item SKIP LOCKED
    FOR SHARE OF operation
"""


def step(operation_id: int) -> float | None:
    """Send what is due. Returns seconds until the next step, None when nothing is left to be sent or known."""
    with transaction.atomic():
        operation = _locked(operation_id)
        if operation is None or operation.state == Progress.DRAFTED:
            return None
        settle(operation_id)
        due = 0 if operation.is_busy else _due(operation, numbers(operation_id))
        if due:
            Operation.objects.filter(pk=operation_id).update(
                stepped_at=Now(), lease_until=Now() + Value(LEASE)
            )
    if due:
        until, sent = monotonic() + WITHIN_S, 0
        while sent < due and monotonic() < until and _send_next(operation):
            sent += 1
    return _next_step(operation_id, sent=bool(due))


def _locked(operation_id: int) -> Any:
    """The operation, with the times that count by the clock of the database."""
    return (
        Operation.objects.select_for_update()
        .filter(pk=operation_id)
        .annotate(
            since_step=Now() - F("stepped_at"),
            since_start=Now() - F("started_at"),
            is_busy=Coalesce(ExpressionWrapper(Q(lease_until__gt=Now()), BooleanField()), False),
        )
        .first()
    )


def _due(operation: Any, now: Numbers) -> int:
    """How many may be sent in this step; stops the operation when too many failed again."""
    if operation.state != Progress.RUNNING or not now.waiting:
        return 0
    known = now.since_start
    succeeded, failed = known[Outcome.SUCCEEDED], known[Outcome.FAILED]
    sent = sum(known.values()) - known[Outcome.REFUSED]
    canary = operation.canary
    if failed * 100 > operation.stop_above * max(canary or JUDGED_FROM, succeeded + failed):
        return _stop(operation, f"{failed} of {succeeded + failed} failed again")
    due = BATCH
    if canary and sent < canary:
        due = canary - sent
    elif canary and sent == canary:
        if known[Outcome.SENT]:
            return 0
        if not succeeded and operation.stop_above < 100:
            return _stop(operation, f"none of the first {sent} succeeded")
        due = canary
    elif canary:
        due = min(BATCH, sent)  # The ramp: each step as many as all before it.
    if operation.rate:
        waited = operation.since_step
        seconds = 1.0 if waited is None else min(waited.total_seconds(), CAUGHT_UP_S)
        due = min(due, max(0, int(operation.rate * seconds)))
    return due


def _stop(operation: Operation, why: str) -> int:
    at = timezone.now().isoformat(timespec="seconds")
    history = [*operation.history, {"at": at, "what": f"stopped: {why}", "actor": ""}]
    Operation.objects.filter(pk=operation.pk).update(state=Progress.STOPPED, stopped_why=why, history=history)
    return 0


def _send_next(operation: Operation) -> bool:
    """Send or refuse the next one; False when there is none, or it is not to be sent now."""
    claimed = None
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(_NEXT, [operation.pk])
            row = cursor.fetchone()
        if row is None:
            return False
        item_id, dead_letter_id, failures = row
        item = OperationItem.objects.filter(pk=item_id)
        try:
            with transaction.atomic():
                if operation.kind == Kind.DISCARD:
                    replay.discard(
                        dead_letter_id, reason=operation.reason, actor=operation.actor, failures=failures
                    )
                    item.update(outcome=Outcome.DISCARDED, sent_at=Now())
                else:
                    claimed = replay.claim(
                        dead_letter_id,
                        actor=operation.actor,
                        retries=operation.retries,
                        force=operation.force,
                        failures=failures,
                        note=f"operation {operation.pk}",
                    )
                    sent_as = claimed.sent or claimed.dead_letter.message_id
                    item.update(outcome=Outcome.SENT, sent_at=Now(), sent_as=sent_as)
        except Exception as why:
            if isinstance(why, (OperationalError, InterfaceError)) or journal.is_not_now(why):
                raise  # The database is down, busy or cannot write, which says nothing about this dead letter.
            # Whatever one dead letter is, the others are sent.
            if not isinstance(why, (replay.NotReplayable, replay.NotDiscardable)):
                logger.exception("operation %s: dead letter %s cannot be sent", operation.pk, dead_letter_id)
            item.update(outcome=Outcome.REFUSED, sent_at=Now(), why=shortened(why))
    if claimed is not None:
        _send(item_id, claimed)
    return True


def _send(item_id: int, claimed: replay.Claimed) -> None:
    """After the commit: what no journal sends. Where it could not be sent, its dead letter is open again."""
    try:
        claimed.send()
    except replay.NotReplayable as why:
        OperationItem.objects.filter(pk=item_id).update(why=shortened(why))


def _next_step(operation_id: int, *, sent: bool) -> float | None:
    """Seconds until the next step. Ends the operation when everything is sent and known."""
    with transaction.atomic():
        operation = _locked(operation_id)
        settle(operation_id)
        changes: dict[str, Any] = {"lease_until": None} if sent else {}
        wait_s = _wait_s(operation, numbers(operation_id))
        if wait_s is None and operation.state == Progress.RUNNING:
            changes |= {"state": Progress.DONE, "ended_at": Now()}
        if changes:
            Operation.objects.filter(pk=operation_id).update(**changes)
    return wait_s


def _wait_s(operation: Any, now: Numbers) -> float | None:
    if now.waiting and operation.state == Progress.RUNNING:
        # Of a canary the outcome is awaited, which may take as long as the back-off of its task.
        awaited = operation.canary and now.outstanding
        return _patience(operation) if awaited else SOON_S
    return _patience(operation) if now.outstanding else None


def _patience(operation: Any) -> float:
    """The longer an outcome has been awaited, the less often it is looked for."""
    return min(LATER_S, max(SOON_S, operation.since_start.total_seconds() / 20))
