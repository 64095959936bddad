"""A crontab where the clock is changed: no time of it is skipped and none runs twice, in any zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from celery.schedules import crontab

from outbox.scheduler import next_tick

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def in_zone(when: crontab, zone: str) -> crontab:
    when.tz = ZoneInfo(zone)
    return when


def ticks(when: crontab, since: datetime, until: datetime) -> list[datetime]:
    """Every tick later than `since`, up to `until`."""
    found, tick = [], next_tick(when, since)
    while tick <= until:
        found.append(tick)
        tick = next_tick(when, tick)
    return found


def wall(moment: datetime, zone: str) -> datetime:
    return moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0)


@cache
def changes() -> list[tuple[str, datetime]]:
    """(zone, moment) of every change of a clock from 2024 to 2027; of zones that change alike only one."""
    found: dict[tuple[tuple[datetime, timedelta | None], ...], str] = {}
    days = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=n) for n in range(4 * 365 + 2)]
    for zone in sorted(available_timezones()):
        offsets = [day.astimezone(ZoneInfo(zone)).utcoffset() for day in days]
        moments = []
        for (day, offset), (_, later) in pairwise(zip(days, offsets, strict=True)):
            if offset != later:
                low, high = day, day + timedelta(days=1)
                while high - low > MINUTE:
                    middle = low + (high - low) // MINUTE // 2 * MINUTE
                    same = middle.astimezone(ZoneInfo(zone)).utcoffset() == offset
                    low, high = (middle, high) if same else (low, middle)
                moments.append((high, high.astimezone(ZoneInfo(zone)).utcoffset()))
        found.setdefault(tuple(moments), zone)
    return [(zone, moment) for moments, zone in found.items() for moment, _ in moments]


def test_no_hour_of_los_angeles_or_quarter_of_berlin_is_missing() -> None:
    hourly = in_zone(crontab(minute="0"), "America/Los_Angeles")
    autumn = datetime(2026, 11, 1, 7, 0, tzinfo=UTC)
    assert ticks(hourly, autumn, autumn + 4 * HOUR) == [autumn + n * HOUR for n in range(1, 5)]
    quarters = in_zone(crontab(minute="*/15"), "Europe/Berlin")
    autumn = datetime(2026, 10, 25, 0, 0, tzinfo=UTC)
    assert ticks(quarters, autumn, autumn + 3 * HOUR) == [autumn + n * 15 * MINUTE for n in range(1, 13)]


@pytest.mark.parametrize(
    ("when", "since", "expected"),
    [
        (crontab(minute="30", hour="2"), "2026-10-24T12:00", ["2026-10-25T00:30", "2026-10-26T01:30"]),
        (crontab(minute="30", hour="2"), "2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-30T00:30"]),
        (crontab(minute="0", hour="2,3"), "2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-30T00:00"]),
        (crontab(minute="0,30", hour="2"), "2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-30T00:00"]),
        (crontab(minute="0", hour="*/2"), "2026-10-24T22:30", ["2026-10-25T00:00", "2026-10-25T03:00"]),
        (crontab(minute="0", hour="0-5"), "2026-10-24T23:30", ["2026-10-25T00:00", "2026-10-25T01:00"]),
        (crontab(minute="30", hour="1-3"), "2026-03-29T00:00", ["2026-03-29T00:30", "2026-03-29T01:30"]),
        (
            crontab(minute="30", hour="2", day_of_month="29", month_of_year="3"),
            "2026-01-01T00:00",
            ["2026-03-29T01:00", "2027-03-29T00:30"],
        ),
        (
            crontab(minute="0", hour="0", day_of_month="29", month_of_year="2", day_of_week="sun"),
            "2026-01-01T00:00",
            ["2032-02-28T23:00", "2060-02-28T23:00"],
        ),
    ],
)
def test_the_rule_in_berlin(when: crontab, since: str, expected: list[str]) -> None:
    in_zone(when, "Europe/Berlin")
    first = next_tick(when, datetime.fromisoformat(since).replace(tzinfo=UTC))
    assert [first, next_tick(when, first)] == [
        datetime.fromisoformat(moment).replace(tzinfo=UTC) for moment in expected
    ]


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (crontab(minute="0", hour="2"), ["02:00+0100"]),
        (crontab(minute="30", hour="2"), ["02:30+0100"]),
        (crontab(minute="0,30", hour="2"), ["02:00+0100", "02:30+0100"]),
        (crontab(minute="0", hour="2,3"), ["02:00+0100", "03:00+0000"]),
        # These hours follow each other: it is an interval, of which no real hour is left out.
        (crontab(minute="0", hour="1-3"), ["01:00+0100", "02:00+0100", "02:00+0000", "03:00+0000"]),
    ],
)
def test_the_rule_in_casablanca_where_the_clock_goes_back_for_ramadan(
    when: crontab, expected: list[str]
) -> None:
    in_zone(when, "Africa/Casablanca")
    day = datetime(2026, 2, 14, 23, 0, tzinfo=UTC)  # 00:00 in Casablanca
    assert [
        moment.astimezone(when.tz).strftime("%H:%M%z")
        for moment in ticks(when, day - MINUTE, day + 24 * HOUR)
    ] == expected


def test_an_hourly_entry_runs_at_every_real_occurrence_in_every_zone() -> None:
    assert len(changes()) > 100
    for zone, change in changes():
        since, until = change - 2 * HOUR, change + 3 * HOUR
        real = [since + n * MINUTE for n in range(1, 301)]
        for minute in ("0", "*/15", "7,37"):
            when = in_zone(crontab(minute=minute), zone)
            due = [moment for moment in real if wall(moment, zone).minute in when.minute]
            assert ticks(when, since, until) == due, (zone, change, minute)


@pytest.mark.promise(
    "P2",
    "the clock is put back or forward for daylight saving",
    (
        "an hourly crontab runs in every real hour; a daily time that comes twice runs at its first, one "
        "that never comes at the change"
    ),
)
def test_a_daily_entry_runs_once_a_day_in_every_zone() -> None:
    for zone, change in changes():
        before, after = wall(change - MINUTE, zone) + MINUTE, wall(change, zone)
        low, high = sorted((before, after))
        for named in {low - MINUTE, low, low + (high - low) // MINUTE // 2 * MINUTE, high - MINUTE, high}:
            when = in_zone(crontab(minute=named.minute, hour=named.hour), zone)
            exists = named.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
            (tick,) = ticks(when, change - 12 * HOUR, change + 12 * HOUR)
            assert tick == (exists if wall(exists, zone) == named else change), (zone, change, named)


def test_a_crontab_that_names_no_time_is_an_error() -> None:
    with pytest.raises(ValueError, match="matches no time"):
        next_tick(crontab(hour=[]), datetime(2026, 1, 1, tzinfo=UTC))
