"""What others may ask about the dead letters; nothing here changes anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, TypedDict

from django.db.models import Count, Min, Prefetch, Q, QuerySet, Value
from django.db.models.functions import Now

from dlq.call import masked_call
from dlq.masking import masked, masked_text
from dlq.models import LARGE, SENT_BY_OTHERS, DeadLetter, DeadLetterEvent, Happened, State, Total, labels

HOUR = timedelta(hours=1)


class Unresolved(TypedDict):
    queue: str
    task: str
    state: str
    count: int


class DeadLettered(TypedDict):
    queue: str
    task: str
    exception: str
    count: int


class Figures(TypedDict):
    """`open`, `replaying`: dead letters in that state; `grown_last_hour`: new ones of the last hour less older ones that were
    closed in it; `by_queue`: the unresolved; `oldest_age_s`: seconds since the oldest open one first failed, None without one
    (those under replay are not counted: an operator cannot act on them); `dead_lettered`, and `replays` by outcome: both over
    all that ever happened, a message that died twice counted twice.
    """

    open: int
    replaying: int
    grown_last_hour: int
    by_queue: list[Unresolved]
    oldest_age_s: float | None
    dead_lettered: list[DeadLettered]
    replays: dict[str, int]


def stats() -> Figures:
    """Figures for metrics and alerts.

    Of a message without a journal a queue or task that is none of this deployment's is "unknown", see `dlq.models.labels`.
    """
    unresolved = DeadLetter.objects.filter(closed_at=None)
    waiting: Counter[tuple[str, str, str]] = Counter()
    rows = unresolved.order_by().values_list("queue", "task", "state", SENT_BY_OTHERS)
    for queue, task, state, outside, count in rows.annotate(count=Count("pk")):
        waiting[(*labels(queue, task, outside=outside), state)] += count
    by_queue: list[Unresolved] = [
        {"queue": queue, "task": task, "state": state, "count": count}
        for (queue, task, state), count in sorted(waiting.items())
    ]
    oldest = unresolved.filter(state=State.OPEN).aggregate(age=Now() - Min("failed_first_at"))["age"]
    hour_ago = Now() - Value(HOUR)
    grown = unresolved.filter(failed_first_at__gt=hour_ago).count()
    closed = DeadLetter.objects.filter(closed_at__gt=hour_ago, failed_first_at__lte=hour_ago).count()
    deaths: Counter[tuple[str, str, str]] = Counter()
    replays: Counter[str] = Counter()
    for queue, task, exception, what, count in happened():
        if what in (Happened.FAILED, Happened.REOPENED):
            deaths[queue, task, exception] += count
        replays[what] += count
    return {
        "open": sum(row["count"] for row in by_queue if row["state"] == State.OPEN),
        "replaying": sum(row["count"] for row in by_queue if row["state"] == State.REPLAYING),
        "grown_last_hour": grown - closed,
        "by_queue": by_queue,
        "oldest_age_s": None if oldest is None else oldest.total_seconds(),
        "dead_lettered": [
            {"queue": queue, "task": task, "exception": exception, "count": count}
            for (queue, task, exception), count in deaths.items()
        ],
        "replays": {
            "sent": replays[Happened.REPLAYED],
            "succeeded": replays[Happened.RESOLVED],
            "failed": replays[Happened.REOPENED],
            "returned": replays[Happened.RETURNED],
        },
    }


def about(*, correlation_id: str, subject: str, limit: int) -> list[DeadLetter]:
    """Up to `limit` dead letters with this correlation id, or called with this argument (`order_id=999`), oldest first.

    With their events; two statements.
    """
    found = DeadLetter.objects.filter(Q(correlation_id=correlation_id) | Q(about__contains=[subject]))
    events = Prefetch("events", DeadLetterEvent.objects.defer("traceback"))
    return list(found.defer(*LARGE).order_by("id").prefetch_related(events)[:limit])


#: Open dead letters that are counted for a chart; more of them are drawn as so many.
COUNTED = 20_000


def series() -> dict[str, float]:
    """For charts, sampled a few times a minute: dead letters that are unresolved, up to `COUNTED`, and those that came and
    went (resolved or discarded) in the last minute.
    """
    unresolved = DeadLetter.objects.filter(closed_at=None).order_by("-failed_at", "-id")[:COUNTED].count()
    gone = (Happened.RESOLVED, Happened.DISCARDED)
    flow = DeadLetterEvent.objects.filter(
        what__in=(Happened.FAILED, *gone), at__gt=Now() - Value(timedelta(minutes=1))
    ).aggregate(came=Count("pk", filter=Q(what=Happened.FAILED)), went=Count("pk", filter=Q(what__in=gone)))
    return {
        "dead_letters": unresolved,
        "dead_letters_in_a_minute": flow["came"],
        "dead_letters_out_a_minute": flow["went"],
    }


def happened() -> QuerySet[Any, tuple[str, str, str, str, int]]:
    """(queue, task, exception, what, count) of all that ever happened; the same labels may come twice.

    One statement, so that what is deleted just now is in one of the two, and not in none or both.
    """
    columns = ("queue", "task", "exception", "what")
    kept = DeadLetterEvent.objects.order_by().values_list(*columns).annotate(count=Count("pk"))
    gone = Total.objects.values_list(*columns, "count")
    # The union would take the model's own order, by a column that it does not have; Django 6.1 refuses that.
    return kept.union(gone, all=True).order_by()


#: Dead letters that are in memory at once while they are exported.
EXPORT_PAGE = 500


def exported(dead_letters: QuerySet[DeadLetter]) -> Iterator[dict[str, Any]]:
    """Dead letters as JSON-ready dicts, with their events; secrets are masked and the raw message stays out.

    A page at a time: all at once may be more than the memory holds, and a cursor of the server needs a session that a
    pooler does not give.
    """
    ids = list(dead_letters.values_list("pk", flat=True))
    for start in range(0, len(ids), EXPORT_PAGE):
        page = DeadLetter.objects.filter(pk__in=ids[start : start + EXPORT_PAGE])
        yield from map(detail, page.prefetch_related("events"))


def detail(dead_letter: DeadLetter) -> dict[str, Any]:
    """Everything that may be shown about one dead letter."""
    args, kwargs = masked_call(dead_letter.task, dead_letter.args, dead_letter.kwargs)
    return {
        "message_id": dead_letter.message_id,
        "state": dead_letter.state,
        "cause": dead_letter.cause,
        "task": masked_text(dead_letter.task),
        "queue": masked_text(dead_letter.queue),
        "call": dead_letter.call,
        "args": args,
        "kwargs": kwargs,
        "headers": masked(dead_letter.headers),
        "correlation_id": masked_text(dead_letter.correlation_id),
        "generation": dead_letter.generation,
        "edited_as": dead_letter.edited_as,
        "origin": dead_letter.origin,
        "exception": dead_letter.exception,
        "error": masked_text(dead_letter.error),
        "traceback": masked_text(dead_letter.traceback),
        "place": dead_letter.place,
        "attempts": dead_letter.attempts,
        "failures": dead_letter.failures,
        "worker": dead_letter.worker,
        "failed_first_at": dead_letter.failed_first_at.isoformat(),
        "failed_at": dead_letter.failed_at.isoformat(),
        "discard_reason": dead_letter.discard_reason,
        "raw_bytes": None if dead_letter.message is None else len(dead_letter.message.body),
        "events": [
            {
                "at": event.at.isoformat(),
                "what": event.what,
                "actor": event.actor,
                "note": masked_text(event.note),
            }
            for event in dead_letter.events.all()
        ],
    }
