"""A replay that nobody hears of again is a failure that nobody sees: after a while its letter is open again.

A message without a journal may be lost with its broker, and whoever sends it may die before it is sent.
"""

from __future__ import annotations

from celery import shared_task
from django.db import transaction

from dlq import replay
from dlq.models import DeadLetter, Happened, State

#: Letters opened in one transaction: a broker that is lost may take thousands of replays with it.
BATCH = 1_000
_WHY = f"its replay was not heard of for {replay.SILENT_AFTER}: it is lost, or waits and may run yet"


@shared_task
def reopen() -> int:
    """Open each letter whose replay was not heard of for `replay.SILENT_AFTER`; returns how many.

    What comes of the replay after all still counts: a success resolves the letter, a failure is recorded.
    """
    opened = 0
    while count := _reopen_some():
        opened += count
    return opened


def _reopen_some() -> int:
    with transaction.atomic():
        # What is locked has just been heard of, is sent again, or is opened by another of us.
        silent = DeadLetter.objects.select_for_update(skip_locked=True).filter(replay.silent())
        letters = list(silent.order_by().only("queue", "task", "generation", "cause")[:BATCH])
        DeadLetter.objects.filter(pk__in=[letter.pk for letter in letters]).update(state=State.OPEN)
        for letter in letters:
            letter.happened(Happened.RETURNED, note=_WHY)
    return len(letters)
