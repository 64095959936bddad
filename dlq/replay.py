"""What an operator can do with a dead letter: replay it, or discard it. Each is claimed, so that two operators act once.

A replay is a new run of the same message, never a copy: it keeps the id, its success resolves the dead letter and
its failure reopens it. "Sent" is not "succeeded".
"""

from __future__ import annotations

from django.db import transaction
from django.db.models import Q, Value
from django.db.models.functions import Now

from dlq import journal
from dlq.error_info import shortened
from dlq.models import DeadLetter, Happened, State
from dlq.resend import SILENT_AFTER, NotReplayable, way_of

__all__ = ["SILENT_AFTER", "NotDiscardable", "NotReplayable", "claimable", "discard", "replay", "silent"]


class NotDiscardable(Exception):
    """The letter was not discarded; the text says why."""


def replay(letter_id: int, *, actor: str = "", retries: int | None = None, force: bool = False) -> str:
    """Send the letter's message again. Returns the id it runs under.

    `force`: also a message that could not be read; for when this deployment can read it.
    `retries`: how often the new run may be retried; None: as often as its task says. A message without a journal gets
    no more than its task says; a handler's letter runs at once, in this process, with 3 by default.

    Raises `NotReplayable` with the reason, and then nothing was sent, but in two cases: a handler ran the letter and
    failed once more, or the broker was lost before it confirmed the message, which may then run, so that the letter
    stays replaying. Raises `ValueError` for a negative `retries`.
    """
    if retries is not None and retries < 0:
        raise ValueError(f"retries must be at least 0, not {retries}")
    with transaction.atomic():
        letter = _claim(letter_id, actor=actor)
        way = way_of(letter, force=force)
        sent = way.claim(letter, retries)
    return way.send(letter, retries) if sent is None else sent


def discard(letter_id: int, *, reason: str, actor: str = "") -> None:
    """Close the letter for good: its message will never run, and what waits behind it in its group moves on.

    Raises `NotDiscardable` when there is no reason given, or the letter is not open.
    """
    reason = shortened(reason).strip()
    if not reason:
        raise NotDiscardable("a discard needs a reason")
    with transaction.atomic():
        changed = DeadLetter.objects.filter(pk=letter_id, state=State.OPEN).update(
            state=State.DISCARDED, closed_at=Now(), discard_reason=reason
        )
        letter = _get(letter_id, NotDiscardable)
        if not changed:
            raise NotDiscardable(f"{letter.message_id} is {letter.state}, not open")
        letter.happened(Happened.DISCARDED, actor=actor, note=reason)
        if letter.generation is not None:
            hooks = journal.hooks()
            if hooks is None:
                # Its message would be dead for ever, and its group wait behind it, with no dead letter to be seen.
                raise NotDiscardable(f"{letter.message_id} has a journal, and DLQ_JOURNAL does not name it")
            try:
                hooks.discard(letter.message_id)
            except hooks.Refused as why:
                raise NotDiscardable(f"{letter.message_id}: {why}") from None


def _claim(letter_id: int, *, actor: str) -> DeadLetter:
    """From open to replaying, once: of two operators one finds the WHERE false."""
    claimed = DeadLetter.objects.filter(claimable(), pk=letter_id).update(
        state=State.REPLAYING, replayed_at=Now()
    )
    letter = _get(letter_id, NotReplayable)
    if not claimed:
        raise NotReplayable(f"{letter.message_id} is {letter.state}, not open")
    letter.happened(Happened.REPLAYED, actor=actor)
    return letter


def silent() -> Q:
    """Letters whose replay was not heard of for `SILENT_AFTER`."""
    long_ago = Now() - Value(SILENT_AFTER)
    return Q(state=State.REPLAYING, closed_at=None, generation=None, replayed_at__lt=long_ago)


def claimable() -> Q:
    """Dead letters that may be replayed now."""
    return Q(state=State.OPEN) | silent()


def _get(letter_id: int, error: type[Exception]) -> DeadLetter:
    letter = DeadLetter.objects.filter(pk=letter_id).first()
    if letter is None:
        raise error(f"there is no letter {letter_id}")
    return letter
