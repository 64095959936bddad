"""Beat: a cursor row per schedule and one message per tick, so that two beats do a tick once and none is skipped.

Celery's own beat advances its entry before it publishes (an outage loses ticks) and knows no second beat (every
message twice). Here the cursor moves in the transaction that writes the message.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from celery.beat import Scheduler as CelerySchedulerBase
from celery.schedules import BaseSchedule, crontab, schedule
from django.db import DatabaseError, InterfaceError, connection, transaction

from outbox.database import first_line, may_pass
from outbox.enqueue import enqueue
from outbox.heartbeat import SIGN_EVERY_S, SignOfLife
from outbox.status import Role

log = logging.getLogger(__name__)

#: Ticks of one schedule that are made up for at once. A long outage must not flood the queue; what is older is skipped,
#: with a line in the log.
MAX_CATCH_UP = 10
#: The wait after a tick that could not be enqueued: the database is down, the entry is wrong, another beat has the cursor.
RETRY_S = 1.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)
_MINUTE = timedelta(minutes=1)
#: A crontab without a tick in this time has none: 29 February falls on each weekday at least every 40 years.
_HORIZON = timedelta(days=41 * 366)


class Scheduler(CelerySchedulerBase):
    """For `celery beat`: enqueues a message, unique on (schedule, tick), for every tick that has come.

    Sleeps until the next tick, and for `max_interval` seconds at the most (Celery's `--max-interval`; default: 10): so long
    it takes until a cursor that another beat has moved is seen.
    """

    max_interval: int = 10

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._wait_s = 0.0
        #: Entry -> what was last logged about it, so that an entry that stays wrong is one line and not one a second.
        self._refused: dict[str, str] = {}
        self._sign = SignOfLife(Role.BEAT)
        super().__init__(*args, **kwargs)

    def install_default_entries(self, data: Any) -> None:
        """Adds none: Celery's one default entry cleans up results, and none are kept."""

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """One pass; returns seconds until the next. Waits out the loss of the database."""
        try:
            self._sign.give()
            self.run_once()
        except (DatabaseError, InterfaceError) as error:
            if not may_pass(error):
                raise
            log.warning("Database unavailable (%s)", first_line(error))
            connection.close()
            return RETRY_S
        return min(self._wait_s, SIGN_EVERY_S)

    def close(self) -> None:
        """End in order: this beat is not missed."""
        try:
            self._sign.end()
        except (DatabaseError, InterfaceError) as error:
            log.warning("The row of this beat stays until a rescuer removes it: %s", first_line(error))
        super().close()

    def run_once(self, at: datetime | None = None) -> int:
        """Enqueue every tick up to now (or `at`); returns how many.

        An entry that cannot be enqueued is logged and left where it is; the others go on. Once it is mended, its
        ticks are made up for.
        """
        count, self._wait_s = 0, float(self.max_interval)
        cursors = self._cursors(at)
        for name, entry in self.schedule.items():
            try:
                spec, wait_s = cursors.get(name, ("", 0.0))
                if wait_s <= 0 or spec != repr(entry.schedule):
                    enqueued, wait_s = self._advance(name, entry, at)
                    count += enqueued
                self._refused.pop(name, None)
            except Exception as error:
                if may_pass(error):
                    raise
                text = f"{type(error).__name__}: {error}"
                if self._refused.get(name) != text:
                    self._refused[name] = text
                    log.error("%s: nothing is enqueued for this schedule: %s", name, text)
                wait_s = RETRY_S
            self._wait_s = min(self._wait_s, wait_s)
        return count

    def _cursors(self, at: datetime | None) -> dict[str, tuple[str, float]]:
        """Of each schedule that has a cursor its definition and the seconds until its next tick, by the database's clock."""
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT name, spec, extract(epoch FROM next_at - coalesce(%s, clock_timestamp()))::float8"
                " FROM outbox_schedule",
                [at],
            )
            return {name: (spec, wait_s) for name, spec, wait_s in cursor.fetchall()}

    def _advance(self, name: str, entry: Any, at: datetime | None) -> tuple[int, float]:
        """Enqueue what is due of one schedule; returns how many, and the seconds until its next tick."""
        spec = repr(entry.schedule)
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT clock_timestamp()")
            now: datetime = at or cursor.fetchone()[0]
            cursor.execute(
                "INSERT INTO outbox_schedule (name, next_at, spec) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                [name, next_tick(entry.schedule, now), spec],
            )
            # SKIP LOCKED: another beat is at it, and will do what is due.
            cursor.execute(
                "SELECT next_at, spec FROM outbox_schedule WHERE name = %s FOR UPDATE SKIP LOCKED", [name]
            )
            row = cursor.fetchone()
            if row is None:
                return 0, RETRY_S
            tick, known_spec = row
            if known_spec != spec:
                # Never later than the tick that was promised: while two beats of different versions run side by side,
                # each finds the other's cursor, and one that began anew every time would never come due.
                tick = min(tick, next_tick(entry.schedule, now))
                log.warning("%s: the schedule changed (%s, was %s); next at %s", name, spec, known_spec, tick)
            due, tick, passed_over = _due(entry.schedule, tick, now)
            for moment in due:
                # With all of its options: what the outbox cannot keep, it refuses.
                signature = self.app.signature(
                    entry.task, args=entry.args, kwargs=entry.kwargs, options=entry.options
                )
                enqueue(signature, dedup_key=f"beat:{name}:{moment.isoformat()}")
            if due or known_spec != spec:
                cursor.execute(
                    "UPDATE outbox_schedule SET next_at = %s, spec = %s WHERE name = %s", [tick, spec, name]
                )
        if passed_over:
            log.warning("%s: ticks older than the last %d were skipped", name, MAX_CATCH_UP)
        return len(due), (tick - now).total_seconds()


def _due(when: BaseSchedule, since: datetime, now: datetime) -> tuple[list[datetime], datetime, bool]:
    """The last MAX_CATCH_UP ticks from `since`, which is one, to `now`; the first one after; whether older ones are left out.

    Looks back only as far as it has to: from a cursor of last year, tick by tick, the database would end the transaction
    first, and the next tick would begin anew.
    """
    reach = timedelta(minutes=1)
    while True:
        first = since if since >= now - reach else next_tick(when, now - reach)
        due, tick = [], first
        while tick <= now:
            due.append(tick)
            tick = next_tick(when, tick)
        if first == since or len(due) > MAX_CATCH_UP:
            return due[-MAX_CATCH_UP:], tick, first != since or len(due) > MAX_CATCH_UP
        reach *= 2


def next_tick(when: BaseSchedule, after: datetime) -> datetime:
    """The first tick after a moment: multiples of an interval since the epoch, or what the crontab says.

    A tick depends on the schedule alone, not on when a beat was started: two beats agree on it.
    """
    if isinstance(when, schedule) and type(when) is schedule:
        # In whole microseconds: with seconds as floats the next tick after a tick could round to that tick itself.
        every_us = max(when.run_every // _US, 1_000_000)
        return _EPOCH + ((after - _EPOCH) // _US // every_us + 1) * every_us * _US
    if isinstance(when, crontab):
        return _next_of_crontab(when, after)
    last, delta, _ = when.remaining_delta(after)
    tick = (last + delta).astimezone(UTC)
    return tick if tick > after else tick + _MINUTE


def _next_of_crontab(when: crontab, after: datetime) -> datetime:
    """The first minute after a moment that a crontab names on the clock of its zone, also where that clock is changed.

    - A clock put back (01:30 comes twice): a fixed time runs at the first 01:30 only; an hour that stands between two
      others of its hour field (`*`, `0-5`) runs both times, as the real hours that they are.
    - A clock put forward (02:30 never comes): a fixed time runs at the moment of the change; of consecutive hours the
      missing one is not made up, since the next follows at once.

    Celery's own `remaining_delta` counts on the wall clock and cannot name the second 01:30. So this steps through
    real time, over months, days and hours that do not match at once, and minute by minute where the clock is changed.
    """
    at = after.astimezone(UTC).replace(second=0, microsecond=0)
    zone: tzinfo = when.tz  # type: ignore[assignment]  # its stub says str
    local = at.astimezone(zone)
    fields = (when.minute, when.hour, when.day_of_week, when.day_of_month, when.month_of_year)
    end = at + _HORIZON if all(fields) else at
    while at < end:
        for step in _steps(when, local):
            following = (at + step).astimezone(zone)
            if _wall(following) - _wall(local) == step:
                break  # The wall clock moved as far as real time did: this steps over no change.
        missing = _wall(local) + _MINUTE
        at, local = at + step, following
        if _names(when, _wall(local)) and (not local.fold or _is_among_consecutive(when, local.hour)):
            return at
        while step == _MINUTE and missing < _wall(local):
            if _names(when, missing) and not _is_among_consecutive(when, missing.hour):
                return at
            missing += _MINUTE
    raise ValueError(f"{when!r} matches no time in the next {_HORIZON.days // 366} years")


def _steps(when: crontab, local: datetime) -> list[timedelta]:
    """How far the next match is at least, longest first; the last is one minute."""
    wall = _wall(local)
    day = wall.replace(hour=0, minute=0)
    steps = [wall.replace(minute=0) + timedelta(hours=1) - wall, _MINUTE]
    if not _names_day(when, wall):
        steps.insert(0, day + timedelta(days=1) - wall)
        if wall.month not in when.month_of_year:
            steps.insert(0, (day.replace(day=1) + timedelta(days=32)).replace(day=1) - wall)
    elif wall.hour in when.hour:
        steps = [_MINUTE]
    return steps


def _wall(local: datetime) -> datetime:
    return local.replace(tzinfo=None, fold=0)


def _names_day(when: crontab, wall: datetime) -> bool:
    return (
        wall.month in when.month_of_year
        and wall.day in when.day_of_month
        and wall.isoweekday() % 7 in when.day_of_week
    )


def _names(when: crontab, wall: datetime) -> bool:
    return wall.minute in when.minute and wall.hour in when.hour and _names_day(when, wall)


def _is_among_consecutive(when: crontab, hour: int) -> bool:
    return {(hour - 1) % 24, hour, (hour + 1) % 24} <= when.hour
