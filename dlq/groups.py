"""The problems behind the dead letters: those of one fingerprint are one problem, however many messages it hit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, ExpressionWrapper, F, IntegerField, Max, Min, QuerySet, Value
from django.db.models.functions import Extract, Floor, Least, Now

from dlq.masking import masked_prefix, masked_text
from dlq.models import DeadLetter, GroupNote, State

#: Windows of the trend of a group, beside a day.
HOUR, WEEK = timedelta(hours=1), timedelta(days=7)
#: Hours of the sparkline, and its size.
HOURS, WIDTH, HEIGHT = 24, 96, 20
#: What the page is sorted by: its name in the address -> the column, the largest first but for the names.
SORTED: dict[str, Any] = {
    "count": "-count",
    "problem": "exception",
    "task": "task",
    "first": "first_at",
    "last": "-last_at",
    "replay": F("last_replay_at").desc(nulls_last=True),
}


@dataclass(frozen=True)
class Group:
    """Dead letters of one fingerprint. `hours`: how many failed in each of the last `HOURS` hours, the oldest first."""

    fingerprint: str
    title: str
    task: str
    count: int
    first_at: datetime
    last_at: datetime
    last_replay_at: datetime | None
    last_hour: int
    last_day: int
    last_week: int
    hours: tuple[int, ...] = ()
    note: GroupNote | None = None

    @property
    def points(self) -> str:
        """The sparkline, as the points of an SVG polyline."""
        most = max(self.hours, default=0) or 1
        step = WIDTH / max(len(self.hours) - 1, 1)
        return " ".join(
            f"{place * step:.1f},{HEIGHT - 1 - (HEIGHT - 2) * number / most:.1f}"
            for place, number in enumerate(self.hours)
        )


def open_groups(*, replaying: bool = False, sort: str = "count") -> QuerySet[Any, Any]:
    """A row for each problem, to be paged and passed to `shown`. `replaying`: those under replay count too."""
    states = [State.OPEN, State.REPLAYING] if replaying else [State.OPEN]
    dead_letters = DeadLetter.objects.filter(closed_at=None, state__in=states)
    return _rows(dead_letters).order_by(SORTED.get(sort, "-count"), "-last_at", "fingerprint")


def shown(rows: Iterable[Any]) -> list[Group]:
    """The groups of one page, with their trends, texts and notes: three statements, whatever their number."""
    rows = list(rows)
    fingerprints = [row["fingerprint"] for row in rows]
    notes = GroupNote.objects.in_bulk(fingerprints, field_name="fingerprint")
    # Of one each, and not of all: a text is in no index, and 100,000 of them take a second to be read.
    texts = DeadLetter.objects.only("place", "error").in_bulk([row["newest"] for row in rows])
    hours: dict[str, Counter[int]] = {each: Counter() for each in fingerprints}
    ago = ExpressionWrapper(
        Least(Floor(Extract(Now() - F("failed_at"), "epoch") / Value(HOUR.total_seconds())), HOURS),
        IntegerField(),
    )
    counted = (
        DeadLetter.objects.filter(
            closed_at=None, fingerprint__in=fingerprints, failed_at__gt=Now() - Value(WEEK)
        )
        .order_by()
        .annotate(hours_ago=ago)
        .values_list("fingerprint", "hours_ago")
        .annotate(number=Count("pk"))
    )
    for fingerprint, hours_ago, number in counted:
        hours[fingerprint][max(hours_ago, 0)] += number
    return [
        _group(row, hours[row["fingerprint"]], texts.get(row["newest"]), notes.get(row["fingerprint"]))
        for row in rows
    ]


def _rows(dead_letters: QuerySet[DeadLetter]) -> QuerySet[Any, Any]:
    # All that is asked for here is in the index `dlq_group`: no row is read.
    return (
        dead_letters.order_by()
        .values("fingerprint", "task", "exception")
        .annotate(
            count=Count("pk"),
            newest=Max("pk"),
            first_at=Min("failed_first_at"),
            last_at=Max("failed_at"),
            last_replay_at=Max("replayed_at"),
        )
    )


def _group(row: dict[str, Any], hours: Counter[int], one: DeadLetter | None, note: GroupNote | None) -> Group:
    """`one`: any dead letter of the group; None where it was deleted just now."""
    return Group(
        fingerprint=row["fingerprint"],
        title=_title(row["exception"], one),
        task=masked_text(row["task"]),
        **{name: row[name] for name in ("count", "first_at", "last_at", "last_replay_at")},
        last_hour=hours[0],
        last_day=sum(hours[ago] for ago in range(HOURS)),
        last_week=hours.total(),
        hours=tuple(hours[ago] for ago in reversed(range(HOURS))),
        note=note,
    )


def _title(exception: str, one: DeadLetter | None) -> str:
    kind = exception.rpartition(".")[2]
    where = one.place or masked_prefix(one.error.strip().partition("\n")[0], 120) if one else ""
    return f"{kind}: {where}" if kind and where else kind or where
