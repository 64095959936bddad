"""What the worker's parent saw end badly, and the child could not record: its process died, was killed, or never ran."""

from __future__ import annotations

import logging
import uuid
from typing import Any

from celery import current_app
from celery.exceptions import NotRegistered

from outbox import conf, dead_lettering, heartbeat, transitions
from outbox.database import may_be_its_own, may_pass
from outbox.errors import PoisonMessage
from outbox.models import OutboxMessage
from outbox.status import Status

log = logging.getLogger(__name__)


def worker_failure(
    *,
    message_id: str,
    generation: int,
    exception: BaseException | None,
    error: str,
    traceback: str,
    lost: bool,
    pid: int | None = None,
) -> str | None:
    """Record the end of this run. Raises what the database raises while it cannot.

    `lost`: the child died, so that the message may run again. `pid`: the child that took it, None when none did; the lease
    of another process is left alone.

    Returns 'settled' (the child had recorded the end), 'scheduled' (it runs again), 'dead', or None when there is no such
    message here.
    """
    known = as_uuid(message_id)
    row = (
        known
        and OutboxMessage.objects.filter(message_id=known).values("generation", "status", "task").first()
    )
    if not known or not row:
        return None
    if row["generation"] != generation or row["status"] not in (Status.PENDING, Status.PUBLISHED):
        return "settled"
    if isinstance(exception, NotRegistered):
        if exception.args[:1] != (row["task"],):
            # This copy is not from the journal, which sends its own.
            log.warning("A copy of %s names the task %s, its row names %s", known, exception, row["task"])
            return "settled"
        grace_s = conf.skew_grace_s()
        if transitions.defer_skewed(known, generation, token=None, error=error, grace_s=grace_s):
            return "scheduled"
    child = heartbeat.identity(pid) if pid else None
    if lost and heartbeat.is_stopping():
        # A supervisor that signals every process of the worker, and not only the first, ends the children itself.
        error = f"{error} (its worker was stopped)"
        again = transitions.lost(known, generation, worker=child, error=error, delay_s=0, counted=False)
        return "scheduled" if again else "settled"
    if may_pass(exception) and not may_be_its_own(exception):
        again = transitions.lost(known, generation, worker=child, error=error, counted=False)
        return "scheduled" if again else "settled"
    if lost or may_pass(exception):
        limit = _max_deliveries(row["task"])
        failure = dead_lettering.Failure(error, exception, traceback)
        if lost:
            text = f"PoisonMessage: {limit} runs began, and the process of the last one was lost ({error})"
            failure = dead_lettering.Failure(text, PoisonMessage(error), traceback)
        if dead_lettering.dead_letter_lost(known, generation, failure, worker=child, max_deliveries=limit):
            return "dead"
        return "scheduled" if transitions.lost(known, generation, worker=child, error=error) else "settled"
    failure = dead_lettering.Failure(error, exception, traceback)
    dead = dead_lettering.dead_letter_worker_failure(known, generation, failure, worker=child)
    return "dead" if dead else "settled"


def _max_deliveries(task: str) -> int:
    return int(getattr(current_app.tasks.get(task), "max_deliveries", 5))


def as_uuid(value: Any) -> uuid.UUID | None:
    """The id of a message; None for what is none."""
    try:
        return uuid.UUID(str(value))
    except ValueError:
        return None
