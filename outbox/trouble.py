"""Which messages an operator has to know of: the dead, those that should have run long ago, and those that wait for a resume.

What is paused is judged as `outbox.stats` does for the alerts; `outbox.pausing.pauses_of` says why and since when.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import Case, CharField, OuterRef, Q, QuerySet, Subquery, Value, When
from django.db.models.functions import Now
from django.db.models.lookups import IsNull

from outbox.models import OutboxMessage, UnusableQueue
from outbox.sql import INDEX_ORDER
from outbox.status import ACTIVE, OPEN, PAUSED_UNTIL, Status

#: By the alphabet the worst comes first.
DEAD, LATE, PAUSED = "dead", "late", "paused"
#: Seconds after which an open message is late: since it was enqueued if it was run or deferred before, else since it was due.
#: Not one that an operator has paused.
LATE_S = 600.0
#: How many of the messages in one state `first_in_trouble` looks at: a page of a list costs the same beside a million of them.
FOUND = 10_000

_SINCE = Now() - Value(timedelta(seconds=LATE_S))
_LATE = Q(created_at__lt=_SINCE, deliver_at__lt=PAUSED_UNTIL) & (
    Q(generation__gt=1) | Q(deliver_at__lt=_SINCE)
)
_PAUSED_QUEUES = UnusableQueue.objects.exclude(paused_by="").order_by("queue").values_list("queue", flat=True)
_SET_ASIDE = Q(status=Status.SCHEDULED, deliver_at__gte=PAUSED_UNTIL)
_HELD = _SET_ASIDE | Q(status=Status.PENDING, queue__in=_PAUSED_QUEUES.order_by())
#: Not EXISTS: for that the planner may read all that is paused.
_HELD_HEAD = Subquery(
    OutboxMessage.objects.filter(_HELD, status__in=ACTIVE, ordering_key=OuterRef("ordering_key"))
    .exclude(ordering_key="")
    .order_by()
    .values("pk")[:1]
)
#: Of a message: `DEAD`, `PAUSED` (itself, or the head of its group), `LATE`, or "".
TROUBLE = Case(
    When(status=Status.DEAD, then=Value(DEAD)),
    When(_HELD | Q(status=Status.BLOCKED) & Q(IsNull(_HELD_HEAD, False)), then=Value(PAUSED)),
    When(_LATE, status__in=OPEN, then=Value(LATE)),
    default=Value(""),
    output_field=CharField(),
)


def in_trouble() -> QuerySet[Any]:
    """The messages in trouble, with their `trouble`, of those that have a correlation id, by which the caller chooses."""
    found = OutboxMessage.objects.filter(status__in=(*OPEN, Status.DEAD)).exclude(correlation_id="")
    return found.annotate(trouble=TROUBLE).exclude(trouble="").order_by()


def first_in_trouble(trouble: str, *conditions: Q) -> list[QuerySet[Any]]:
    """Messages with this trouble, and with others, which their `trouble` tells: of each state the first `FOUND` to look at."""
    return [
        OutboxMessage.objects.filter(condition, *conditions)
        .annotate(trouble=TROUBLE)
        .order_by(*order.split(", "))[:FOUND]
        for condition, order in _by_index(trouble)
    ]


def _by_index(trouble: str) -> list[tuple[Q, str]]:
    """The conditions of the indexes that find it, with the order that the index has: a set of states has none."""
    if trouble == DEAD:
        return [(Q(status=Status.DEAD), "ordering_key")]
    # The ranges before, between and behind these: a million that wait in one of them are not read for the late ones.
    queues = list(_PAUSED_QUEUES.all())
    if trouble == PAUSED:
        pending = [Q(queue__gte=queue, queue__lte=queue) for queue in queues]
        return [
            (_SET_ASIDE, INDEX_ORDER["paused"]),
            (Q(status=Status.BLOCKED), INDEX_ORDER["blocked"]),
            *((Q(status=Status.PENDING) & one, INDEX_ORDER["pending"]) for one in pending),
        ]
    before = [Q(queue__lt=queue) for queue in queues]
    after = [Q(queue__gt=queue) for queue in queues]
    pending = [low & high for low, high in zip([Q(), *after], [*before, Q()], strict=True)]
    return [
        (_LATE & Q(status=Status.SCHEDULED), INDEX_ORDER["scheduled"]),
        (_LATE & Q(status=Status.BLOCKED), INDEX_ORDER["blocked"]),
        *((_LATE & Q(status=Status.PENDING) & one, INDEX_ORDER["pending"]) for one in pending),
        (_LATE & Q(status=Status.PUBLISHED, started_at=None), INDEX_ORDER["published"]),
        (_LATE & Q(status=Status.PUBLISHED, started_at__isnull=False), INDEX_ORDER["running"]),
    ]
