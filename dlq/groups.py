"""The problems behind the dead letters: those of one fingerprint are one problem, however many messages it hit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, ExpressionWrapper, F, IntegerField, Max, Min, Q, QuerySet, Value
from django.db.models.functions import Extract, Floor, Now

from dlq.masking import masked_prefix
from dlq.models import DeadLetter, GroupNote, State

#: Windows of the trend of a group.
HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(days=7)
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
    """The groups of one page, with their trends and notes: two statements, whatever their number."""
    rows = list(rows)
    fingerprints = [row["fingerprint"] for row in rows]
    notes = GroupNote.objects.in_bulk(fingerprints, field_name="fingerprint")
    hours: dict[str, list[int]] = {each: [0] * HOURS for each in fingerprints}
    ago = ExpressionWrapper(
        Floor(Extract(Now() - F("failed_at"), "epoch") / Value(HOUR.total_seconds())), IntegerField()
    )
    counted = (
        DeadLetter.objects.filter(
            closed_at=None, fingerprint__in=fingerprints, failed_at__gt=Now() - Value(HOURS * HOUR)
        )
        .order_by()
        .annotate(hours_ago=ago)
        .values_list("fingerprint", "hours_ago")
        .annotate(number=Count("pk"))
    )
    for fingerprint, hours_ago, number in counted:
        hours[fingerprint][HOURS - 1 - min(max(hours_ago, 0), HOURS - 1)] += number
    return [
        _group(row, hours=tuple(hours[row["fingerprint"]]), note=notes.get(row["fingerprint"]))
        for row in rows
    ]


def groups(dead_letters: QuerySet[DeadLetter] | None = None) -> list[Group]:
    """The problems behind the unresolved dead letters, the largest first."""
    dead_letters = DeadLetter.objects.filter(closed_at=None) if dead_letters is None else dead_letters
    return [_group(row) for row in _rows(dead_letters).order_by("-count", "-last_at")]


def _rows(dead_letters: QuerySet[DeadLetter]) -> QuerySet[Any, Any]:
    return (
        dead_letters.order_by()
        .values("fingerprint", "task", "exception")
        .annotate(
            count=Count("pk"),
            place=Max("place"),
            error=Max("error"),
            first_at=Min("failed_first_at"),
            last_at=Max("failed_at"),
            last_replay_at=Max("replayed_at"),
            **{name: Count("pk", filter=Q(failed_at__gte=Now() - Value(span)))
               for name, span in (("last_hour", HOUR), ("last_day", DAY), ("last_week", WEEK))},
        )
    )  # fmt: skip


_GROUP_COLUMNS = set(Group.__dataclass_fields__) - {"title", "hours", "note"}


def _group(row: dict[str, Any], **more: Any) -> Group:
    return Group(title=_title(row), **{k: v for k, v in row.items() if k in _GROUP_COLUMNS}, **more)


def _title(row: dict[str, Any]) -> str:
    kind = row["exception"].rpartition(".")[2]
    where = row["place"] or masked_prefix(row["error"].strip().partition("\n")[0], 120)
    return f"{kind}: {where}" if kind else where
