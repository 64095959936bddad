"""Freeze which dead letters an operation is about, and say beforehand what of them can be sent."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

from django.db import connection, models, transaction
from django.db.models import F, QuerySet, Value
from django.db.models.functions import Now

from dlq import call, conf, journal
from dlq.masking import masked_text
from dlq.models import Cause, DeadLetter, State
from dlq.operations.models import BULK, Kind, Operation, Outcome, Progress
from dlq.resend import UNREADABLE

#: A draft that was not confirmed for so long is deleted when the next one is made.
DRAFT_KEPT = timedelta(days=1)

READY = "ready"
PAUSED = "paused, waits for the resume of"
EDITED = "edited: a copy of it was sent"
AGAIN = "failed again since"
CLOSED = "resolved or discarded meanwhile"
UNDER_WAY = "is being replayed"
NO_TASK = "task not known here"
UNREAD = "could not be read"
NO_MESSAGE = "its message was not kept"
NO_HANDLER = "its queue has no handler"
DELETED = "its record was deleted"


def draft(
    kind: Kind, dead_letters: QuerySet[DeadLetter], *, actor: str, chosen_by: str = "", reason: str = ""
) -> Operation:
    """An operation for exactly these dead letters, the oldest failure first, to be confirmed by `control.start`.

    One INSERT .. SELECT: they are no list in memory, and what arrives or fails again later is not in it.
    """
    if kind not in BULK:
        raise ValueError(f"a selection is for {' or '.join(BULK)}, not {kind}")
    with transaction.atomic():
        Operation.objects.filter(state=Progress.DRAFTED, created_at__lt=Now() - Value(DRAFT_KEPT)).delete()
        operation = Operation.objects.create(
            kind=kind, actor=actor, reason=reason.strip(), chosen_by=masked_text(chosen_by)
        )
        # A search may join what repeats a row: a subquery names each once.
        chosen = (
            DeadLetter.objects.filter(pk__in=dead_letters.order_by().values("pk"))
            .order_by("failed_first_at", "pk")
            .values_list(Value(operation.pk, models.BigIntegerField()), "pk", "failures")
        )
        statement, parameters = chosen.query.sql_with_params()
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO dlq_operationitem (operation_id, dead_letter_id, failures) {statement}",
                parameters,
            )
            operation.selected = cursor.rowcount
        operation.save(update_fields=["selected"])
    return operation


def preflight(operation: Operation) -> dict[str, int]:
    """What would come of each chosen dead letter that was not sent yet: verdict -> number, `READY` first.

    By the kinds of dead letters and not one by one; what only its turn can show, such as a queue of the past, is refused then.
    """
    dead_letters = (
        DeadLetter.objects.filter(
            pk__in=operation.items.filter(outcome=Outcome.WAITING).values("dead_letter_id")
        )
        .annotate(chosen_failures=models.Subquery(_chosen(operation)))
        .annotate(
            same=_is(models.Q(failures=F("chosen_failures"))),
            edited=_is(~models.Q(edited_as="")),
            journalled=_is(models.Q(generation__isnull=False)),
            kept=_is(models.Q(raw__isnull=False)),
        )
        .order_by()
        .values_list("state", "same", "edited", "task", "queue", "cause", "journalled", "kept")
        .annotate(number=models.Count("pk"))
    )
    verdicts, held_back = Counter({READY: 0}), journal.held_back()
    for state, same, edited, task, queue, cause, journalled, kept, number in dead_letters:
        verdict = _of_state(state, same, edited)
        if verdict == READY and operation.kind == Kind.REPLAY:
            verdict = _of_message(task, queue, cause, journalled, kept, force=operation.force)
            if verdict == READY and (by := held_back(queue, task, journalled)):
                verdict = f"{PAUSED} {by}"
        verdicts[verdict] += number
    waiting = operation.items.filter(outcome=Outcome.WAITING).count()
    if deleted := waiting - sum(verdicts.values()):
        verdicts[DELETED] = deleted
    return dict(verdicts)


def _chosen(operation: Operation) -> Any:
    # The slice is for Django 6.1, which compares with no subquery that could have several rows. This one has one.
    return operation.items.filter(dead_letter_id=models.OuterRef("pk")).values("failures")[:1]


def _is(condition: models.Q) -> models.Case:
    return models.Case(
        models.When(condition, then=True),
        default=False,
        output_field=models.BooleanField(),
    )


def _of_state(state: str, same: bool, edited: bool) -> str:
    if edited and state != State.OPEN:
        return EDITED
    if state in (State.RESOLVED, State.DISCARDED):
        return CLOSED
    if state == State.REPLAYING:
        return UNDER_WAY
    return READY if same else AGAIN


def _of_message(task: str, queue: str, cause: str, journalled: bool, kept: bool, *, force: bool) -> str:
    if not journalled:
        if cause in UNREADABLE and not force:
            return UNREAD
        if not kept:
            if cause != Cause.ADDED:
                return NO_MESSAGE
            return READY if conf.handler(queue) else NO_HANDLER
    if call.registered(task) is None:
        return NO_TASK
    circuit = conf.open_circuit(task)
    return f"circuit open: {circuit}" if circuit else READY
