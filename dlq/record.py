"""Open a dead letter, count it again, resolve it. Recording is idempotent: one ending seen twice is one dead letter.

Every function joins the caller's transaction, so that the dead letter and what it is about are committed together.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, QuerySet, Value
from django.db.models.functions import Now

from dlq import call
from dlq.error_info import described, shortened
from dlq.message import EDIT_HEADER, REPLAY_HEADER, RawMessage, storable, text
from dlq.models import Cause, DeadLetter, Happened, LostRun, State

#: Lost runs of messages that ended well leave their count behind; after this it is of no use.
LOST_RUNS_KEPT = timedelta(days=7)
#: What a replay must not overwrite.
_ORIGINAL = ("raw", "raw_digest", "headers")


def on_dead(
    *,
    message_id: Any,
    generation: int | None,
    task: str,
    args: Any,
    kwargs: Any,
    queue: str,
    headers: dict[str, Any] | None,
    exception: BaseException | None,
    error: str,
    traceback: str,
    attempts: int,
    worker: str,
) -> DeadLetter:
    """A journalled message is dead: open its dead letter, or reopen it after a replay that failed.

    Called by the journal in the transaction in which the message becomes dead. The same generation reported twice
    changes nothing. Its cause is that it failed, or was lost where the exception says so (`lost = True`); what the
    worker's parent alone knows of the end is added by `complete`.
    """
    headers = headers or {}
    origin = str(headers.get(REPLAY_HEADER, message_id))
    if origin != str(message_id):
        on_resolved(origin, note=f"was sent again, and goes on as the journal's message {message_id}")
    dead_letter, _ = _record(
        str(message_id),
        generation=generation,
        values={
            "cause": Cause.LOST if getattr(exception, "lost", False) else Cause.FAILED,
            "queue": text(queue)[:255],
            "headers": storable(headers),
            "correlation_id": correlation_of(headers),
            "attempts": attempts,
            "worker": text(worker),
            **_called(task, args, kwargs),
            **described(exception=exception, error=error, traceback=traceback, task=task),
        },
    )
    return dead_letter


def record_raw(
    *,
    message_key: str,
    raw: RawMessage,
    cause: Cause,
    error: str,
    keep_raw: bool = True,
    exception: BaseException | None = None,
    traceback: str = "",
    task: str = "",
    args: Any = None,
    kwargs: Any = None,
    attempts: int = 1,
    worker: str = "",
    replayed: bool = False,
) -> DeadLetter:
    """A message without a journal ended badly: keep it whole, under its id.

    `keep_raw`: False for a message that the database will not take. `replayed`: it is the copy that a replay of this
    dead letter sent, whatever its digest.
    Another message that shares the id of an unresolved dead letter gets one of its own, under its digest: nothing that
    was received is dropped because a producer used an id twice.
    """
    values = {
        "cause": cause,
        "queue": raw.queue,
        "headers": storable(raw.headers) if keep_raw else {},
        "correlation_id": correlation_of(raw.headers),
        "attempts": attempts,
        "worker": text(worker),
        "raw": raw.dump() if keep_raw else None,
        "raw_digest": raw.digest,
        **_called(task, args, kwargs),
        **described(exception=exception, error=error, traceback=traceback, task=task),
    }
    if EDIT_HEADER in raw.headers:
        on_copy_ended(raw.headers[EDIT_HEADER], message_key, note=f"its edited copy {message_key} failed")
    dead_letter, mine = _record(message_key, generation=None, values=values, replayed=replayed)
    if not mine:
        dead_letter, _ = _record(f"sha256:{raw.digest}", generation=None, values=values)
    return dead_letter


def added(
    *,
    queue: Any,
    args: Any,
    kwargs: Any,
    error: str,
    exception: BaseException | None = None,
    traceback: str = "",
    attempts: int = 1,
) -> dict[str, Any]:
    """The columns of a dead letter for a job of the application, which has no message.

    They include every column of one with a message: a closed dead letter that is added again is then about this job
    alone.
    """
    return {
        **dict.fromkeys(("correlation_id", "worker", "raw_digest"), ""),
        "raw": None,
        "generation": None,
        "headers": {},
        "attempts": attempts,
        "cause": Cause.ADDED,
        "queue": text(queue)[:255],
        **_called("", args, kwargs),
        **described(exception=exception, error=error, traceback=traceback, task=""),
    }


def _called(task: str, args: Any, kwargs: Any) -> dict[str, Any]:
    name, args, kwargs = text(task), storable(args), storable(kwargs)
    return {"task": name[:255], "args": args, "kwargs": kwargs, "about": call.subjects(name, args, kwargs)}


def _record(
    message_key: str, *, generation: int | None, values: dict[str, Any], replayed: bool = False
) -> tuple[DeadLetter, bool]:
    """Insert or update. The second value is False when the unresolved dead letter of this key is another message's."""
    with transaction.atomic():
        dead_letter, created = DeadLetter.objects.select_for_update().get_or_create(
            message_id=message_key, defaults={**values, "generation": generation}
        )
        if created:
            _died(dead_letter, Happened.FAILED)
            return dead_letter, True
        if dead_letter.state == State.OPEN and dead_letter.cause == Cause.ADDED:
            # The application has put this failure aside already: here is the message that it is about.
            DeadLetter.objects.filter(pk=dead_letter.pk).update(**values, generation=generation)
            dead_letter.refresh_from_db()
            return dead_letter, True
        if generation is None:
            if dead_letter.closed_at is None and not replayed:
                # The same message: a redelivery, or the second of two hooks that report one ending. While the
                # dead letter is under replay, the copy that was sent decides and not a late one of the original.
                return dead_letter, dead_letter.raw_digest == values["raw_digest"]
            if dead_letter.state == State.OPEN and not (replayed and _was_given_up(dead_letter)):
                return dead_letter, True
            if replayed:
                # What came back is the copy that the replay sent; the dead letter keeps the original.
                values = {name: value for name, value in values.items() if name not in _ORIGINAL}
        elif generation == dead_letter.generation:
            return dead_letter, True
        reopen_with(dead_letter, values | {"generation": generation})
    return dead_letter, True


def _was_given_up(dead_letter: DeadLetter) -> bool:
    """Its replay counts as lost; what comes of it after all is not yet recorded."""
    last = dead_letter.events.last()
    return last is not None and last.what == Happened.RETURNED


def reopen(message_id: str, *, attempts: int, exception: BaseException, error: str, traceback: str) -> None:
    """A replay that ran outside of any worker failed: its dead letter is open again."""
    with transaction.atomic():
        dead_letter = DeadLetter.objects.select_for_update().get(message_id=message_id)
        values = described(exception=exception, error=error, traceback=traceback, task=dead_letter.task)
        reopen_with(dead_letter, {**values, "attempts": attempts})


def reopen_with(dead_letter: DeadLetter, values: dict[str, Any]) -> None:
    """The same dead letter again, with what went wrong this time; what went wrong before stays in its events."""
    DeadLetter.objects.filter(pk=dead_letter.pk).update(
        **values,
        state=State.OPEN,
        failures=F("failures") + 1,
        closed_at=None,
        discard_reason="",
        failed_at=Now(),
    )
    dead_letter.refresh_from_db()
    _died(dead_letter, Happened.REOPENED)


def on_resolved(message_id: Any, *, headers: dict[str, Any] | None = None, note: str = "") -> bool:
    """Resolve the dead letter of a message that succeeded. Returns False when it has none to close.

    An open one closes as well: the message may have been replayed by other means, or its replay have been given up too
    early. `headers`: the message's, which name the dead letter that it was sent again from, where it runs under
    another id.
    """
    return _resolve(_unresolved(message_id, headers), note)


def on_copy_ended(original_id: Any, copy_id: str, *, note: str = "") -> bool:
    """Resolve the dead letter of which an edited copy without a journal has ended, well or as a dead letter of its own.

    Not that of another copy: any producer can write the header that names it.
    """
    dead_letters = DeadLetter.objects.select_for_update().filter(
        message_id=str(original_id), edited_as=copy_id, closed_at=None
    )
    return _resolve(dead_letters, note)


def _resolve(unresolved: QuerySet[DeadLetter], note: str) -> bool:
    with transaction.atomic():
        dead_letters = list(unresolved)
        for dead_letter in dead_letters:
            DeadLetter.objects.filter(pk=dead_letter.pk).update(state=State.RESOLVED, closed_at=Now())
            dead_letter.happened(Happened.RESOLVED, note=shortened(note))
    return bool(dead_letters)


def on_cancelled(message_id: Any, *, headers: dict[str, Any] | None = None, reason: str) -> None:
    """Discard the dead letter of a message that was sent again and cancelled before it ran."""
    reason = shortened(f"its message was cancelled: {reason}")
    with transaction.atomic():
        for dead_letter in _unresolved(message_id, headers):
            DeadLetter.objects.filter(pk=dead_letter.pk).update(
                state=State.DISCARDED, closed_at=Now(), discard_reason=reason
            )
            dead_letter.happened(Happened.DISCARDED, note=reason)


def _unresolved(message_id: Any, headers: dict[str, Any] | None) -> QuerySet[DeadLetter]:
    """The dead letters that wait for this message, locked."""
    keys = {str(message_id), str((headers or {}).get(REPLAY_HEADER, message_id))}
    return DeadLetter.objects.select_for_update().filter(message_id__in=keys, closed_at=None).order_by("pk")


def complete(message_key: str, *, cause: Cause, raw: RawMessage | None) -> None:
    """Add what the worker's parent knows to a dead letter that its journal opened: the cause, the message as received."""
    dead_letters = DeadLetter.objects.filter(message_id=message_key)
    dead_letters.update(cause=cause)
    if raw is not None:
        dead_letters.filter(raw=None).update(raw=raw.dump(), raw_digest=raw.digest)


def lost_runs(message_key: str) -> int:
    """How many runs of this message took their process down before the present one."""
    return LostRun.objects.filter(message_key=message_key).values_list("count", flat=True).first() or 0


def count_lost_run(message_key: str) -> int:
    """The broker redelivers this message, so that one more run of it is lost; how many are so far."""
    LostRun.objects.filter(last_at__lt=Now() - Value(LOST_RUNS_KEPT)).delete()
    with transaction.atomic():
        row, created = LostRun.objects.select_for_update().get_or_create(message_key=message_key)
        if not created:
            LostRun.objects.filter(pk=row.pk).update(count=F("count") + 1, last_at=Now())
            row.refresh_from_db()
    return row.count


def uncount_lost_run(message_key: str) -> None:
    """The run that ended was stopped with its worker. The next worker will count it all the same, as it cannot know."""
    LostRun.objects.filter(message_key=message_key, count__gt=0).update(count=F("count") - 1)


def forget_lost_runs(message_key: str) -> None:
    """The message is a dead letter now, and a replay of it has all its runs again."""
    LostRun.objects.filter(message_key=message_key).delete()


def correlation_of(headers: dict[str, Any]) -> str:
    """What ties the message to the request that caused it."""
    return text(headers.get("correlation_id") or headers.get("correlation") or "")[:255]


def _died(dead_letter: DeadLetter, what: Happened) -> None:
    dead_letter.happened(
        what,
        note=dead_letter.error,
        exception=dead_letter.exception,
        traceback=dead_letter.traceback,
        attempts=dead_letter.attempts,
    )
