"""Which message of an ordered group becomes its head: the relay's pass and the end of the head before it agree."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from outbox import groups
from outbox.models import OutboxMessage
from outbox.status import ACTIVE, Status

pytestmark = pytest.mark.django_db

ENDED = {"done_at": timezone.now()}
KINDS: dict[str, dict[str, Any]] = {
    "blocked": {"status": Status.BLOCKED},
    "replayed": {"status": Status.BLOCKED, "replays": 1},
    "dead": {"status": Status.DEAD, **ENDED},
    "dead, passed over": {"status": Status.DEAD, "passes_over_dead": True, **ENDED},
    "done": {"status": Status.DONE, **ENDED},
    "active": {"status": Status.SCHEDULED},
}


def _heads(by_next: bool) -> dict[str, int]:
    """Group -> place of the message that became its head, by one of the two ways; nothing is kept."""
    with transaction.atomic():
        before = set(OutboxMessage.objects.filter(status__in=ACTIVE).values_list("id", flat=True))
        if by_next:
            for key in OutboxMessage.objects.order_by().values_list("ordering_key", flat=True).distinct():
                groups.promote_next(key)
        else:
            groups.promote_heads()
        promoted = OutboxMessage.objects.filter(status__in=ACTIVE).exclude(id__in=before)
        heads = {message.ordering_key: int(message.task) for message in promoted}
        transaction.set_rollback(True)
    return heads


def test_both_ways_find_the_same_next_head() -> None:
    """Of every group of three messages."""
    combinations = [kinds for kinds in product(KINDS, repeat=3) if kinds.count("active") < 2]
    OutboxMessage.objects.bulk_create(
        OutboxMessage(queue="default", task=f"{place}", ordering_key=", ".join(kinds), **KINDS[kind])
        for kinds in combinations
        for place, kind in enumerate(kinds, start=1)
    )
    heads = _heads(by_next=False)
    assert _heads(by_next=True) == heads
    assert {key: heads.get(", ".join(key)) for key in EXPECTED} == EXPECTED


EXPECTED: dict[tuple[str, str, str], int | None] = {
    ("done", "blocked", "blocked"): 2,
    ("done", "active", "blocked"): None,
    ("dead", "blocked", "blocked"): None,
    ("dead, passed over", "blocked", "blocked"): 2,
    # What was enqueued after it and is dead does not hold what an operator sends again.
    ("done", "replayed", "dead"): 2,
    ("dead", "replayed", "blocked"): None,
    ("done", "blocked", "dead"): None,
}
