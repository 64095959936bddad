"""Open a letter, count it again, resolve it. Recording is idempotent: one ending seen twice is one letter.

Every function joins the caller's transaction, so that the letter and what it is about are committed together.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, QuerySet, Value
from django.db.models.functions import Now

from dlq import call
from dlq.error_info import described, shortened
from dlq.message import REPLAY_HEADER, RawMessage, storable, text
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
    """A journalled message is dead: open its letter, or reopen it after a replay that failed.

    Called by the journal in the transaction in which the message becomes dead. The same generation reported twice
    changes nothing. Its cause is that it failed, or was lost where the exception says so (`lost = True`); what the
    worker's parent alone knows of the end is added by `complete`.
    """
    headers = headers or {}
    origin = str(headers.get(REPLAY_HEADER, message_id))
    if origin != str(message_id):
        on_resolved(origin, note=f"was sent again, and goes on as the journal's message {message_id}")
    letter, _ = _record(
        str(message_id),
        generation=generation,
        values={
            "cause": Cause.LOST if getattr(exception, "lost", False) else Cause.FAILED,
            "task": text(task)[:255],
            "args": storable(args),
            "kwargs": storable(kwargs),
            "about": call.subjects(text(task), storable(args), storable(kwargs)),
            "queue": text(queue)[:255],
            "headers": storable(headers),
            "correlation_id": correlation_of(headers),
            "attempts": attempts,
            "worker": text(worker),
            **described(exception=exception, error=error, traceback=traceback, task=task),
        },
    )
    return letter


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
    very letter sent, whatever its digest.
    Another message that shares the id of an unresolved letter gets a letter of its own, under its digest: nothing
    that was received is dropped because a producer used an id twice.
    """
    values = {
        "cause": cause,
        "task": text(task)[:255],
        "args": storable(args),
        "kwargs": storable(kwargs),
        "about": call.subjects(text(task), storable(args), storable(kwargs)),
        "queue": raw.queue,
        "headers": storable(raw.headers) if keep_raw else {},
        "correlation_id": correlation_of(raw.headers),
        "attempts": attempts,
        "worker": text(worker),
        "raw": raw.dump() if keep_raw else None,
        "raw_digest": raw.digest,
        **described(exception=exception, error=error, traceback=traceback, task=task),
    }
    letter, mine = _record(message_key, generation=None, values=values, replayed=replayed)
    if not mine:
        letter, _ = _record(f"sha256:{raw.digest}", generation=None, values=values)
    return letter


def _record(
    message_key: str, *, generation: int | None, values: dict[str, Any], replayed: bool = False
) -> tuple[DeadLetter, bool]:
    """Insert or update. The second value is False when the unresolved letter of this key is another message's."""
    with transaction.atomic():
        letter, created = DeadLetter.objects.select_for_update().get_or_create(
            message_id=message_key, defaults={**values, "generation": generation}
        )
        if created:
            _died(letter, Happened.FAILED)
            return letter, True
        if letter.state == State.OPEN and letter.cause == Cause.ADDED:
            # The application has put this failure aside already: here is the message that it speaks of.
            DeadLetter.objects.filter(pk=letter.pk).update(**values, generation=generation)
            letter.refresh_from_db()
            return letter, True
        if generation is None:
            if letter.closed_at is None and not replayed:
                # The same message: a redelivery, or the second of two hooks that report one ending. While the letter
                # is under replay, the copy that was sent decides and not a late one of the original.
                return letter, letter.raw_digest == values["raw_digest"]
            if letter.state == State.OPEN and not (replayed and _was_given_up(letter)):
                return letter, True
            if replayed:
                # What came back is the copy that the replay sent; the letter keeps the original.
                values = {name: value for name, value in values.items() if name not in _ORIGINAL}
        elif generation == letter.generation:
            return letter, True
        reopen_with(letter, values | {"generation": generation})
    return letter, True


def _was_given_up(letter: DeadLetter) -> bool:
    """Its replay counts as lost; what comes of it after all is not yet recorded."""
    last = letter.events.last()
    return last is not None and last.what == Happened.RETURNED


def reopen(message_id: str, *, attempts: int, exception: BaseException, error: str, traceback: str) -> None:
    """A replay that ran outside of any worker failed: its letter is open again."""
    with transaction.atomic():
        letter = DeadLetter.objects.select_for_update().get(message_id=message_id)
        values = described(exception=exception, error=error, traceback=traceback, task=letter.task)
        reopen_with(letter, {**values, "attempts": attempts})


def reopen_with(letter: DeadLetter, values: dict[str, Any]) -> None:
    """The same letter again, with what went wrong this time; what went wrong before stays in its events."""
    DeadLetter.objects.filter(pk=letter.pk).update(
        **values,
        state=State.OPEN,
        failures=F("failures") + 1,
        closed_at=None,
        discard_reason="",
        failed_at=Now(),
    )
    letter.refresh_from_db()
    _died(letter, Happened.REOPENED)


def on_resolved(message_id: Any, *, headers: dict[str, Any] | None = None, note: str = "") -> bool:
    """A replay of this message succeeded: its letter needs nobody any more. False when it has no letter to
    close.

    An open letter closes as well: the message may have been replayed by other means, or its replay have been
    given up too early. `headers`: the message's, which name the letter that it was sent again from, where it runs
    under another id.
    """
    with transaction.atomic():
        letters = list(_unresolved(message_id, headers))
        for letter in letters:
            DeadLetter.objects.filter(pk=letter.pk).update(state=State.RESOLVED, closed_at=Now())
            letter.happened(Happened.RESOLVED, note=shortened(note))
    return bool(letters)


def on_cancelled(message_id: Any, *, headers: dict[str, Any] | None = None, reason: str) -> None:
    """A message that was sent again was taken back before it ran: its letter will hear of it no more."""
    reason = shortened(f"its message was cancelled: {reason}")
    with transaction.atomic():
        for letter in _unresolved(message_id, headers):
            DeadLetter.objects.filter(pk=letter.pk).update(
                state=State.DISCARDED, closed_at=Now(), discard_reason=reason
            )
            letter.happened(Happened.DISCARDED, note=reason)


def _unresolved(message_id: Any, headers: dict[str, Any] | None) -> QuerySet[DeadLetter]:
    """The letters that wait for this message, locked."""
    keys = {str(message_id), str((headers or {}).get(REPLAY_HEADER, message_id))}
    return DeadLetter.objects.select_for_update().filter(message_id__in=keys, closed_at=None).order_by("pk")


def complete(message_key: str, *, cause: Cause, raw: RawMessage | None) -> None:
    """Add what the worker's parent knows to a dead letter that its journal opened: the cause, the message as received."""
    letters = DeadLetter.objects.filter(message_id=message_key)
    letters.update(cause=cause)
    if raw is not None:
        letters.filter(raw=None).update(raw=raw.dump(), raw_digest=raw.digest)


def lost_runs(message_key: str) -> int:
    """How many runs of this message took their process down before the present one."""
    return LostRun.objects.filter(message_key=message_key).values_list("count", flat=True).first() or 0


def count_lost_run(message_key: str) -> int:
    """The broker gives this message out again, so that one more run of it is lost; how many are so far."""
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
    """The message is a letter now, and a replay of it has all its runs again."""
    LostRun.objects.filter(message_key=message_key).delete()


def correlation_of(headers: dict[str, Any]) -> str:
    """What ties the message to the request that caused it."""
    return text(headers.get("correlation_id") or headers.get("correlation") or "")[:255]


def _died(letter: DeadLetter, what: Happened) -> None:
    letter.happened(
        what,
        note=letter.error,
        exception=letter.exception,
        traceback=letter.traceback,
        attempts=letter.attempts,
    )
