"""Edit and replay: a copy of one dead letter's message runs with other arguments, and the original stays as it is.

The two are linked: the dead letter names its copy, and a dead letter of the copy names its origin. While the copy runs the
dead letter is under replay; it is resolved when the copy has ended, well or as a dead letter of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from django.db import transaction
from django.db.models.functions import Now

from dlq import arguments, edited, replay
from dlq.error_info import shortened
from dlq.models import DeadLetter
from dlq.operations import audit, driver
from dlq.operations.models import Kind, Operation, OperationItem, Outcome, Progress
from dlq.replay import NotReplayable


def edit(
    dead_letter_id: int,
    changes: Mapping[str, Any],
    *,
    without: Collection[str] = (),
    actor: str,
    reason: str = "",
    retries: int | None = None,
    failures: int | None = None,
) -> Operation:
    """Send a copy with these arguments changed, by name, and those in `without` left out. Returns what is on record of it.

    `retries`: how often the copy may be retried; None: as often as its task says. `failures`: refused when the dead letter has
    failed again since it had so many.

    Claim, copy and record are one transaction: of two that edit or replay one dead letter one is refused. Raises
    `dlq.arguments.InvalidArgument` with the argument's name before anything is sent, and `NotReplayable` with the reason; of
    the two exceptions in which something was sent, `dlq.replay.replay` tells.
    """
    if retries is not None and retries < 0:
        raise ValueError(f"retries must be at least 0, not {retries}")
    with transaction.atomic():
        dead_letter = DeadLetter.objects.select_for_update().filter(pk=dead_letter_id).first()
        if dead_letter is None:
            raise NotReplayable(f"there is no dead letter {dead_letter_id}")
        copy = edited.Copy(arguments.changed(dead_letter, changes, without))
        names = ", ".join(copy.changed.names)
        claimed = replay.claim(
            dead_letter_id,
            actor=actor,
            retries=retries,
            failures=failures,
            note=shortened(f"edited {names}; runs as {copy.copy_id}"),
            copy=copy,
        )
        operation = audit.record(
            Kind.EDIT,
            f"edited {names}",
            actor=actor,
            reason=reason,
            chosen_by=dead_letter.message_id,
            selected=1,
            state=Progress.RUNNING,
        )
        OperationItem.objects.create(
            operation=operation,
            dead_letter=dead_letter,
            failures=dead_letter.failures,
            outcome=Outcome.SENT,
            sent_at=Now(),
            sent_as=copy.copy_id,
        )
        driver.ask(operation)
    claimed.send()
    return operation
