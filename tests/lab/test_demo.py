"""The demo ends in about a minute, and says that it hangs only when it does."""

from __future__ import annotations

import os
import subprocess
import sys

from lab.demo import DEMO_SETTINGS, STILL_SECONDS
from lab.settings import LONGEST_STEP_S
from lab.stack.stack import ROOT
from lab.stillness import WAITING_SECONDS, Stillness

# Every task that retries by a fixed schedule: its longest wait, and how often it is retried.
SCHEDULES = """
import django
django.setup()
from config.celery import app
app.finalize()
app.loader.import_default_modules()
for name, task in app.tasks.items():
    if getattr(task, "retry_schedule", None):
        print(name, max(map(task.retry_policy().delay_s, range(20))), task.max_retries)
"""


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_run_hangs_when_nothing_changes_and_no_message_is_due_later() -> None:
    clock = Clock()
    stillness = Stillness(STILL_SECONDS, clock=clock)
    assert not stillness.hangs("one", waiting=False)
    clock.now = STILL_SECONDS
    assert not stillness.hangs("one", waiting=False)
    clock.now += 0.1
    assert stillness.hangs("one", waiting=False)
    assert not stillness.hangs("two", waiting=False)


def test_a_run_that_waits_for_a_retry_does_not_hang() -> None:
    clock = Clock()
    stillness = Stillness(STILL_SECONDS, clock=clock)
    for clock.now in range(360):
        assert not stillness.hangs("the same", waiting=True)
    clock.now += STILL_SECONDS + 0.1
    assert stillness.hangs("the same", waiting=False), "the retry was due and did not come"


def test_a_run_that_waits_for_ever_hangs() -> None:
    clock = Clock()
    stillness = Stillness(STILL_SECONDS, clock=clock)
    stillness.hangs("the same", waiting=True)
    clock.now = WAITING_SECONDS + 0.1
    assert stillness.hangs("the same", waiting=True)


def test_no_schedule_of_hours_holds_up_the_demo() -> None:
    """Every message is tried as often as elsewhere."""
    ran = subprocess.run(
        [sys.executable, "-c", SCHEDULES],
        cwd=ROOT,
        env={**os.environ, **DEMO_SETTINGS},
        capture_output=True,
        text=True,
        check=True,
    )
    found = [line.split() for line in ran.stdout.splitlines()]
    assert len(found) >= 2
    for name, longest_s, retries in found:
        assert float(longest_s) <= LONGEST_STEP_S * float(DEMO_SETTINGS["RETRY_SCALE"]), name
        assert int(retries) >= int(DEMO_SETTINGS["RETRY_MINIMUM"]), name
