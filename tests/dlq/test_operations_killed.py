"""An operation whose process is killed goes on where it was: nothing is sent twice, nothing is left out."""

from __future__ import annotations

import subprocess
import sys

import pytest
from django.db.models import Count

import outbox
from dlq.models import DeadLetter, DeadLetterEvent, Operation
from dlq.operations import control, driver, selection
from dlq.operations.models import Kind
from dlq.operations.progress import numbers
from outbox import dead_lettering
from outbox.models import OutboxMessage
from tests.support.processes import ROOT, await_, environment
from tests.support.tasks import note_once

COUNT = 200


@pytest.mark.slow
def test_a_replay_killed_while_it_sends_sends_each_once(clean: None) -> None:
    """The next process ends it."""
    failure = dead_lettering.Failure("seeded", RuntimeError("seeded"))
    for number in range(COUNT):
        message_id = outbox.enqueue(note_once.s(f"n-{number}"))
        assert dead_lettering.dead_letter_worker_failure(message_id, 1, failure, worker=None)
    operation = selection.draft(Kind.REPLAY, DeadLetter.objects.all(), actor="alice")
    control.start(operation, actor="alice", drive=False)
    for more in (20, 40):
        _kill_after(operation, numbers(operation.pk).sent + more)
    assert 0 < numbers(operation.pk).waiting < COUNT
    assert OutboxMessage.objects.filter(replays=1).count() == numbers(operation.pk).sent
    driver.run(operation.pk, wait=False)
    assert (numbers(operation.pk).sent, numbers(operation.pk).waiting) == (COUNT, 0)
    assert OutboxMessage.objects.filter(replays=1).count() == COUNT
    replays = DeadLetterEvent.objects.filter(what="replayed").values("dead_letter").annotate(n=Count("pk"))
    assert set(replays.values_list("n", flat=True)) == {1}


def _kill_after(operation: Operation, sent: int) -> None:
    """Send in a process of its own, and kill it when so many are sent."""
    process = subprocess.Popen(
        [sys.executable, "manage.py", "dlq", "operations", "run", str(operation.pk)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
    )
    try:
        await_(lambda: numbers(operation.pk).sent >= sent, f"{sent} are sent", 60)
    finally:
        process.kill()
        process.wait()
