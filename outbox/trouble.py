"""Which messages an operator has to know of: the dead ones, and those that should have run long ago."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import Case, CharField, Q, QuerySet, Value, When
from django.db.models.functions import Now

from outbox.models import OutboxMessage
from outbox.sql import INDEX_ORDER
from outbox.status import OPEN, PAUSED_UNTIL, Status

DEAD, LATE = "dead", "late"
#: Seconds after which an open message is late: since it was enqueued if it was run or deferred before, else since it was due.
#: Not one that an operator has paused.
LATE_S = 600.0
#: How many of the messages in one state `first_in_trouble` finds: a page of a list costs the same beside a million of them.
FOUND = 10_000

_SINCE = Now() - Value(timedelta(seconds=LATE_S))
_LATE = Q(created_at__lt=_SINCE, deliver_at__lt=PAUSED_UNTIL) & (
    Q(generation__gt=1) | Q(deliver_at__lt=_SINCE)
)
#: Of a message: `DEAD`, `LATE`, or "".
TROUBLE = Case(
    When(status=Status.DEAD, then=Value(DEAD)),
    When(_LATE, status__in=OPEN, then=Value(LATE)),
    default=Value(""),
    output_field=CharField(),
)
#: Of each trouble the conditions of the indexes that find it, with the order that the index has: a set of states has none.
_BY_INDEX = {
    DEAD: [(Q(status=Status.DEAD), "ordering_key")],
    LATE: [
        (_LATE & Q(status=Status.SCHEDULED), INDEX_ORDER["scheduled"]),
        (_LATE & Q(status=Status.BLOCKED), INDEX_ORDER["blocked"]),
        (_LATE & Q(status=Status.PENDING), INDEX_ORDER["pending"]),
        (_LATE & Q(status=Status.PUBLISHED, started_at=None), INDEX_ORDER["published"]),
        (_LATE & Q(status=Status.PUBLISHED, started_at__isnull=False), INDEX_ORDER["running"]),
    ],
}


def in_trouble() -> QuerySet[OutboxMessage]:
    """The messages that are dead or late, of those that have a correlation id, by which the caller chooses among them."""
    conditions = Q(status=Status.DEAD) | _LATE & Q(status__in=OPEN)
    return OutboxMessage.objects.filter(conditions).exclude(correlation_id="").order_by()


def first_in_trouble(trouble: str) -> list[QuerySet[OutboxMessage]]:
    """The first `FOUND` messages of each state with this trouble, of those that have a correlation id."""
    return [
        OutboxMessage.objects.filter(condition)
        .exclude(correlation_id="")
        .order_by(*order.split(", "))[:FOUND]
        for condition, order in _BY_INDEX[trouble]
    ]
