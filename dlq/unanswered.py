"""Open a dead letter again whose replay had no outcome for an hour, so that no failure stays hidden.

A message without a journal may be lost with its broker, and the process that sends it may die before it is sent. So may the
message that drives an operation.
"""

from __future__ import annotations

from celery import shared_task
from django.db import transaction

from dlq import replay
from dlq.models import DeadLetter, Happened, State
from dlq.operations import driver, retention

#: Dead letters opened in one transaction: a broker that is lost may take thousands of replays with it.
BATCH = 1_000
_WHY = f"its replay has had no outcome for {replay.SILENT_AFTER}: it is lost, or still waits and may run"


@shared_task
def reopen() -> int:
    """Open each dead letter whose replay has had no outcome for `replay.SILENT_AFTER`; returns how many. Also revives
    stalled operations and deletes old ones.

    What comes of the replay after all still counts: a success resolves the dead letter, a failure is recorded.
    """
    driver.revive()
    retention.delete_ended()
    opened = 0
    while count := _reopen_some():
        opened += count
    return opened


def _reopen_some() -> int:
    with transaction.atomic():
        # What is locked has just had its outcome, is sent again, or is opened by another of us.
        silent = DeadLetter.objects.select_for_update(skip_locked=True).filter(replay.silent())
        dead_letters = list(silent.order_by().only("queue", "task", "generation", "cause")[:BATCH])
        DeadLetter.objects.filter(pk__in=[dead_letter.pk for dead_letter in dead_letters]).update(
            state=State.OPEN
        )
        for dead_letter in dead_letters:
            dead_letter.happened(Happened.RETURNED, note=_WHY)
    return len(dead_letters)
