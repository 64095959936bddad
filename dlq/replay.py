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
    """The dead letter was not discarded; the text says why."""


def replay(dead_letter_id: int, *, actor: str = "", retries: int | None = None, force: bool = False) -> str:
    """Send the dead letter's message again. Returns the id it runs under.

    `force`: also a message that could not be read; for when this deployment can read it.
    `retries`: how often the new run may be retried; None: as often as its task says. A message without a journal gets
    no more than its task says; a handler's dead letter runs at once, in this process, with 3 by default.

    Raises `NotReplayable` with the reason, and then nothing was sent, but in two cases: a handler ran it and failed once
    more, or the broker was lost before it confirmed the message, which may then run, so that the dead letter stays
    replaying. Raises `ValueError` for a negative `retries`.
    """
    if retries is not None and retries < 0:
        raise ValueError(f"retries must be at least 0, not {retries}")
    with transaction.atomic():
        dead_letter = _claim(dead_letter_id, actor=actor)
        way = way_of(dead_letter, force=force)
        sent = way.claim(dead_letter, retries)
    return way.send(dead_letter, retries) if sent is None else sent


def discard(dead_letter_id: int, *, reason: str, actor: str = "") -> None:
    """Close the dead letter for good: its message will never run, and what waits behind it in its group moves on.

    Raises `NotDiscardable` when there is no reason given, or the dead letter is not open.
    """
    reason = shortened(reason).strip()
    if not reason:
        raise NotDiscardable("a discard needs a reason")
    with transaction.atomic():
        changed = DeadLetter.objects.filter(pk=dead_letter_id, state=State.OPEN).update(
            state=State.DISCARDED, closed_at=Now(), discard_reason=reason
        )
        dead_letter = _get(dead_letter_id, NotDiscardable)
        if not changed:
            raise NotDiscardable(f"{dead_letter.message_id} is {dead_letter.state}, not open")
        dead_letter.happened(Happened.DISCARDED, actor=actor, note=reason)
        if dead_letter.generation is not None:
            hooks = journal.hooks()
            if hooks is None:
                # Its message would be dead for ever, and its group wait behind it, with no dead letter to be seen.
                raise NotDiscardable(
                    f"{dead_letter.message_id} has a journal, and DLQ_JOURNAL does not name it"
                )
            try:
                hooks.discard(dead_letter.message_id)
            except hooks.Refused as why:
                raise NotDiscardable(f"{dead_letter.message_id}: {why}") from None


def _claim(dead_letter_id: int, *, actor: str) -> DeadLetter:
    """From open to replaying, once: of two operators one finds the WHERE false."""
    claimed = DeadLetter.objects.filter(claimable(), pk=dead_letter_id).update(
        state=State.REPLAYING, replayed_at=Now()
    )
    dead_letter = _get(dead_letter_id, NotReplayable)
    if not claimed:
        raise NotReplayable(f"{dead_letter.message_id} is {dead_letter.state}, not open")
    dead_letter.happened(Happened.REPLAYED, actor=actor)
    return dead_letter


def silent() -> Q:
    """Dead letters whose replay was not heard of for `SILENT_AFTER`."""
    long_ago = Now() - Value(SILENT_AFTER)
    return Q(state=State.REPLAYING, closed_at=None, generation=None, replayed_at__lt=long_ago)


def claimable() -> Q:
    """Dead letters that may be replayed now."""
    return Q(state=State.OPEN) | silent()


def _get(dead_letter_id: int, error: type[Exception]) -> DeadLetter:
    dead_letter = DeadLetter.objects.filter(pk=dead_letter_id).first()
    if dead_letter is None:
        raise error(f"there is no dead letter {dead_letter_id}")
    return dead_letter
