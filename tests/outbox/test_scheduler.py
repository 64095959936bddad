"""Beat: every tick has one message, whatever process is killed and however many beats there are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from celery import current_app
from celery.schedules import BaseSchedule, crontab, schedule
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import example, given
from hypothesis import strategies as st
from pytest_mock import MockerFixture

import outbox.scheduler
from outbox.models import OutboxMessage, Schedule
from outbox.scheduler import MAX_CATCH_UP, Scheduler, next_tick
from outbox.testing import staged
from tests.support import effects
from tests.support.database import another_session
from tests.support.processes import await_, relay, started, worker

START = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
NOTE = "tests.support.tasks.note"


def beat(every: Any = schedule(60.0), **others: Any) -> Scheduler:  # noqa: B008  (a schedule is immutable)
    scheduler = Scheduler(app=current_app._get_current_object(), lazy=True)
    scheduler.data = {}
    entries = {**others, "note": {"task": NOTE, "args": ["tick"], "schedule": every}}
    scheduler.update_from_dict(entries)
    return scheduler


def ticks() -> list[str]:
    return [m.dedup_key.split(":", 2)[2] for m in OutboxMessage.objects.order_by("id")]


@pytest.mark.django_db
def test_a_schedule_begins_with_its_next_tick_and_then_misses_none() -> None:
    scheduler = beat()
    assert scheduler.run_once(START) == 0
    assert scheduler.run_once(START + timedelta(seconds=29)) == 0
    assert scheduler.run_once(START + timedelta(seconds=30)) == 1
    assert scheduler.run_once(START + timedelta(minutes=2)) == 1
    assert ticks() == ["2026-03-01T12:01:00+00:00", "2026-03-01T12:02:00+00:00"]


@pytest.mark.django_db
def test_two_beats_do_a_tick_once() -> None:
    one, other = beat(), beat()
    one.run_once(START)
    assert one.run_once(START + timedelta(seconds=40)) == 1
    assert other.run_once(START + timedelta(seconds=40)) == 0
    assert len(staged()) == 1


@pytest.mark.django_db
def test_ticks_missed_in_an_outage_are_made_up_for() -> None:
    """A long outage does not flood the queue."""
    scheduler = beat()
    scheduler.run_once(START)
    assert scheduler.run_once(START + timedelta(minutes=3)) == 3
    assert scheduler.run_once(START + timedelta(days=30)) == MAX_CATCH_UP
    assert ticks()[-1] == "2026-03-31T12:00:00+00:00"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("every", "step"),
    [
        (schedule(1.0), timedelta(seconds=1)),
        (crontab(), timedelta(minutes=1)),
        (crontab(minute="0", hour="3"), timedelta(days=1)),
    ],
)
def test_an_old_cursor_is_made_up_for_without_every_tick(
    every: BaseSchedule, step: timedelta, mocker: MockerFixture
) -> None:
    """A cursor of years ago, without a walk over the ticks since then."""
    scheduler = beat(every)
    scheduler.run_once(START - timedelta(days=3000))
    steps = mocker.spy(outbox.scheduler, "next_tick")
    assert scheduler.run_once(START) == MAX_CATCH_UP
    assert steps.call_count < 200
    after = next_tick(every, START)
    assert ticks() == [(after - step * back).isoformat() for back in range(MAX_CATCH_UP, 0, -1)]
    assert scheduler.run_once(START) == 0


@pytest.mark.django_db
def test_a_schedule_made_denser_takes_effect_at_once() -> None:
    beat(schedule(3600.0)).run_once(START)
    assert beat(schedule(10.0)).run_once(START + timedelta(minutes=30)) == 0
    assert Schedule.objects.get().next_at == START + timedelta(minutes=30, seconds=10)


@pytest.mark.django_db
def test_two_beats_of_different_versions_side_by_side_keep_every_tick(
    caplog: pytest.LogCaptureFixture,
) -> None:
    old, new = beat(schedule(60.0)), beat(schedule(90.0))
    enqueued = 0
    for second in range(121):
        enqueued += old.run_once(START + timedelta(seconds=second))
        enqueued += new.run_once(START + timedelta(seconds=second, milliseconds=500))
    assert enqueued >= 2
    assert {"2026-03-01T12:01:00+00:00", "2026-03-01T12:02:00+00:00"} <= set(ticks())
    assert "note: the schedule changed (" in caplog.text


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"task": NOTE, "args": ["x"], "schedule": 60.0, "options": {"queue": "nope"}}, "'nope'"),
        ({"task": "no.such.task", "schedule": 60.0}, "not registered"),
        (
            {"task": NOTE, "args": ["x"], "schedule": 60.0, "options": {"expires": 5, "priority": 3}},
            "cannot keep `expires`: check in the task whether it still matters; `priority`: give urgent tasks a queue",
        ),
        ({"task": NOTE, "args": ["x"], "schedule": BaseSchedule()}, "no attribute 'remaining_delta'"),
    ],
    ids=["unknown queue", "unknown task", "unknown options", "schedule that cannot tell its next tick"],
)
def test_an_entry_that_cannot_be_enqueued_is_one_error(
    wrong: dict[str, Any], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The others go on."""
    scheduler = beat(wrong=wrong)
    for seconds in (0, 40, 41):
        scheduler.run_once(START + timedelta(seconds=seconds))
    assert [m.dedup_key.split(":")[1] for m in OutboxMessage.objects.all()] == ["note"]
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert line.startswith("wrong: nothing is enqueued")
    assert says in line


@pytest.mark.django_db
def test_an_entrys_countdown_delays_its_message() -> None:
    later = {"task": NOTE, "args": ["x"], "schedule": 60.0, "options": {"countdown": 30, "queue": "low"}}
    scheduler = beat(schedule(3600.0), later=later)
    scheduler.run_once(START)
    assert scheduler.run_once(START + timedelta(seconds=40)) == 1
    (message,) = staged()
    assert (message.status, message.queue) == ("scheduled", "low")


@pytest.mark.django_db
def test_beat_asks_once_and_then_sleeps_until_the_next_tick() -> None:
    scheduler = beat(schedule(5.0), hourly={"task": NOTE, "args": ["hour"], "schedule": 3600.0})
    scheduler.tick()
    with CaptureQueriesContext(connection) as look:
        assert 0 < scheduler.tick() <= 5
    assert len(look) == 1
    due = Schedule.objects.get(name="note").next_at
    assert scheduler.run_once(due - timedelta(milliseconds=1)) == 0
    assert scheduler._wait_s == pytest.approx(0.001)
    assert scheduler.run_once(due) == 1
    assert scheduler._wait_s == 5


@pytest.mark.django_db
def test_a_cursor_moved_by_another_beat_is_seen_in_time() -> None:
    """After the longest sleep."""
    old, new = beat(schedule(3600.0)), beat(schedule(10.0))
    old.run_once(START)
    assert old._wait_s == Scheduler.max_interval == 10
    new.run_once(START + timedelta(seconds=1))
    # The new one is killed. What it has promised is done by the old one.
    assert old.run_once(START + timedelta(seconds=old._wait_s)) == 1
    assert ticks() == ["2026-03-01T12:00:40+00:00"]
    assert Scheduler(app=current_app._get_current_object(), lazy=True, max_interval=3).max_interval == 3


@pytest.mark.django_db
def test_an_entry_that_cannot_be_enqueued_is_tried_again_soon() -> None:
    scheduler = beat(schedule(3600.0), wrong={"task": "no.such.task", "schedule": 60.0})
    scheduler.run_once(START)
    scheduler.run_once(START + timedelta(minutes=1))
    assert scheduler._wait_s == outbox.scheduler.RETRY_S


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("clean")
def test_a_tick_whose_cursor_another_beat_holds_is_looked_at_again_soon() -> None:
    """The other one may be killed before it commits."""
    scheduler = beat()
    scheduler.run_once(START)
    with another_session() as other:
        other.cursor().execute("SELECT 1 FROM outbox_schedule FOR UPDATE")
        assert scheduler.run_once(START + timedelta(seconds=40)) == 0
        assert scheduler._wait_s == outbox.scheduler.RETRY_S
        other.rollback()
    assert scheduler.run_once(START + timedelta(seconds=41)) == 1


def test_beat_knows_no_schedule_but_those_that_were_set() -> None:
    scheduler = Scheduler(app=current_app._get_current_object(), lazy=True)
    scheduler.setup_schedule()
    assert scheduler.schedule.keys() == current_app.conf.beat_schedule.keys()


@given(
    every=st.floats(min_value=0.1, max_value=10_000_000),
    after=st.datetimes(
        min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC)
    ),
)
@example(every=1.1, after=START)
@example(every=100 / 3, after=START)
@example(every=86_400 / 7, after=START)
def test_every_tick_is_later_than_the_one_before_by_the_interval(every: float, after: datetime) -> None:
    when = schedule(every)
    interval = max(when.run_every, timedelta(seconds=1))
    tick = next_tick(when, after)
    assert after < tick <= after + interval
    for _ in range(50):
        later = next_tick(when, tick)
        assert later - tick == interval
        assert next_tick(when, later - timedelta(microseconds=1)) == later
        tick = later


@pytest.mark.parametrize(
    ("when", "after", "tick"),
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
def test_a_tick_depends_on_the_schedule_alone(when: Any, after: datetime, tick: str) -> None:
    assert next_tick(when, after) == datetime.fromisoformat(tick).replace(tzinfo=UTC)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("clean")
def test_two_real_beats_of_which_one_is_killed_do_every_tick_once() -> None:
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
