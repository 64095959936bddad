"""Beat: every slot has one message, whoever is killed and however many beats there are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from celery import current_app
from celery.schedules import crontab, schedule

from outbox.beat import MAX_CATCH_UP, Scheduler, next_slot
from outbox.models import OutboxMessage, Schedule
from outbox.testing import staged
from tests.support import effects
from tests.support.processes import await_, relay, started, worker

START = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
NOTE = "tests.support.tasks.note"


def beat(every: Any = schedule(60.0)) -> Scheduler:  # noqa: B008  (a schedule is immutable)
    scheduler = Scheduler(app=current_app._get_current_object(), lazy=True)
    scheduler.data = {}
    scheduler.update_from_dict({"note": {"task": NOTE, "args": ["tick"], "schedule": every}})
    return scheduler


def slots() -> list[str]:
    return [m.dedup_key.split(":", 2)[2] for m in OutboxMessage.objects.order_by("id")]


@pytest.mark.django_db
def test_a_schedule_begins_with_its_next_slot_and_then_misses_none() -> None:
    scheduler = beat()
    assert scheduler.run_once(START) == 0
    assert scheduler.run_once(START + timedelta(seconds=29)) == 0
    assert scheduler.run_once(START + timedelta(seconds=30)) == 1
    assert scheduler.run_once(START + timedelta(minutes=2)) == 1
    assert slots() == ["2026-03-01T12:01:00+00:00", "2026-03-01T12:02:00+00:00"]


@pytest.mark.django_db
def test_two_beats_do_a_slot_once() -> None:
    one, other = beat(), beat()
    one.run_once(START)
    assert one.run_once(START + timedelta(seconds=40)) == 1
    assert other.run_once(START + timedelta(seconds=40)) == 0
    assert len(staged()) == 1


@pytest.mark.django_db
def test_slots_missed_in_an_outage_are_made_up_for_and_a_long_outage_does_not_flood() -> None:
    scheduler = beat()
    scheduler.run_once(START)
    assert scheduler.run_once(START + timedelta(minutes=3)) == 3
    assert scheduler.run_once(START + timedelta(days=30)) == MAX_CATCH_UP
    assert slots()[-1] == "2026-03-31T12:00:00+00:00"


@pytest.mark.django_db
def test_a_changed_schedule_starts_anew() -> None:
    beat().run_once(START)
    assert beat(schedule(10.0)).run_once(START + timedelta(minutes=30)) == 0
    assert Schedule.objects.get().next_at == START + timedelta(minutes=30, seconds=10)


@pytest.mark.parametrize(
    ("when", "after", "slot"),
    [
        (schedule(60.0), START, "2026-03-01T12:01:00"),
        (schedule(60.0), START.replace(second=0), "2026-03-01T12:01:00"),
        (schedule(3600.0), START, "2026-03-01T13:00:00"),
        (crontab(minute="*/15"), START, "2026-03-01T12:15:00"),
        (crontab(minute=0, hour=3), START, "2026-03-02T03:00:00"),
        (crontab(minute=0, hour=0, day_of_month=1), START, "2026-04-01T00:00:00"),
        (crontab(minute=1), START.replace(minute=1, second=0), "2026-03-01T13:01:00"),
    ],
)
def test_a_slot_depends_on_the_schedule_alone(when: Any, after: datetime, slot: str) -> None:
    assert next_slot(when, after) == datetime.fromisoformat(slot).replace(tzinfo=UTC)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("clean")
def test_two_real_beats_of_which_one_is_killed_do_every_slot_once() -> None:
    arguments = ["-m", "celery", "-A", "config", "beat", "--loglevel", "INFO"]
    env = {"HOLDFAST_TEST_TICK": "1"}
    with (
        worker(env=env),
        relay(env=env),
        started(arguments, env=env, ready="beat: Starting") as first,
        started(arguments, env=env, ready="beat: Starting"),
    ):
        await_(lambda: effects.count("tick") >= 3, "three ticks")
        first.kill_group()
        await_(lambda: effects.count("tick") >= 6, "three more ticks after one beat was killed")
    keys = list(
        OutboxMessage.objects.filter(dedup_key__startswith="beat:tick:").values_list("dedup_key", flat=True)
    )
    assert len(keys) == len(set(keys))
    seconds = sorted(datetime.fromisoformat(key.split(":", 2)[2]) for key in keys)
    assert all(later - earlier == timedelta(seconds=1) for earlier, later in pairwise(seconds))
