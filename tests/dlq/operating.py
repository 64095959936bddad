"""Operations on dead letters whose journal has every message, and what came of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from dlq import record
from dlq.models import DeadLetter, Operation
from dlq.operations import control, selection
from dlq.operations.models import Kind
from tests.dlq.test_record import die

sent: list[str] = []


def publisher(message_id: str, *, retries: int | None) -> str:
    """A journal that has every message."""
    sent.append(message_id)
    return message_id


def dead(count: int) -> list[str]:
    return [die(f"m-{number}").message_id for number in range(count)]


def started(kind: Kind = Kind.REPLAY, **options: Any) -> Operation:
    """An operation of every dead letter that there is, and confirmed."""
    operation = selection.draft(kind, DeadLetter.objects.all(), actor="alice")
    return control.start(operation, actor="alice", drive=False, **options)


def succeed(*message_ids: str) -> None:
    for message_id in message_ids:
        record.on_resolved(message_id)


def fail(*message_ids: str) -> None:
    for message_id in message_ids:
        die(message_id, generation=1 + DeadLetter.objects.get(message_id=message_id).failures)


def a_second_later(operation: Operation, seconds: float = 1) -> None:
    """As if the last step had been a second ago."""
    past = timezone.now() - timedelta(seconds=seconds)
    Operation.objects.filter(pk=operation.pk, stepped_at__isnull=False).update(stepped_at=past)


def state_of(operation: Operation) -> str:
    return Operation.objects.values_list("state", flat=True).get(pk=operation.pk)
