"""Which messages an operator has to know of: the dead ones, and those that should have run long ago."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import Case, CharField, Q, QuerySet, Value, When
from django.db.models.functions import Now

from outbox.models import OutboxMessage
from outbox.status import OPEN, Status

DEAD, LATE = "dead", "late"
#: Seconds after which an open message is late: since it was enqueued if it was run or deferred before, else since it was due.
LATE_S = 600.0

_SINCE = Now() - Value(timedelta(seconds=LATE_S))
_LATE = Q(created_at__lt=_SINCE) & (Q(generation__gt=1) | Q(deliver_at__lt=_SINCE))
#: Of a message: `DEAD`, `LATE`, or "".
TROUBLE = Case(
    When(status=Status.DEAD, then=Value(DEAD)),
    When(_LATE, status__in=OPEN, then=Value(LATE)),
    default=Value(""),
    output_field=CharField(),
)


def in_trouble(*troubles: str) -> QuerySet[OutboxMessage]:
    """The messages with these troubles, of those that have a correlation id; each trouble is found by its own indexes."""
    # The conditions of the partial indexes, each for itself: a set of states is none of them.
    late = Q(status=Status.SCHEDULED) | Q(status=Status.BLOCKED) | Q(status=Status.PENDING)
    late |= Q(status=Status.PUBLISHED, started_at=None) | Q(status=Status.PUBLISHED, started_at__isnull=False)
    wanted = {DEAD: Q(status=Status.DEAD), LATE: late & _LATE}
    conditions = Q()
    for trouble in troubles:
        conditions |= wanted[trouble]
    return OutboxMessage.objects.filter(conditions).exclude(correlation_id="").order_by()
