"""What an operator can do with a dead letter: replay it, or discard it. Each is claimed, so that two operators act once.

A replay is a new run of the same message, never a copy: it keeps the id, its success resolves the dead letter and
its failure reopens it. "Sent" is not "succeeded". With other arguments it is a copy, see `dlq.operations.edit`.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.db import transaction
from django.db.models import Q, Value
from django.db.models.functions import Now

from dlq import edited, journal
from dlq.error_info import shortened
from dlq.models import DeadLetter, Happened, State
from dlq.resend import SILENT_AFTER, NotReplayable, Way, way_of

__all__ = [
    "SILENT_AFTER",
    "Claimed",
    "NotDiscardable",
    "NotReplayable",
    "claim",
    "claimable",
    "discard",
    "replay",
    "silent",
]


class NotDiscardable(Exception):
    """The dead letter was not discarded; the text says why."""


@dataclass(frozen=True)
class Claimed:
    """A dead letter that is being replayed; `sent`: the id that it runs under, None until `send` was called."""

    dead_letter: DeadLetter
    way: Way
    retries: int | None
    sent: str | None

    def send(self) -> str:
        """What is left to do after the claim is committed. Returns the id that it runs under."""
        return self.way.send(self.dead_letter, self.retries) if self.sent is None else self.sent


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
        claimed = claim(dead_letter_id, actor=actor, retries=retries, force=force)
    return claimed.send()


def claim(
    dead_letter_id: int,
    *,
    actor: str,
    retries: int | None = None,
    force: bool = False,
    failures: int | None = None,
    note: str = "",
    copy: edited.Copy | None = None,
) -> Claimed:
    """The first half of `replay`, in the caller's transaction: after its commit, `send` of what is returned is called.

    `failures`: refused when the dead letter has failed again since it had so many. `copy`: an edited copy is sent, and the
    dead letter says so. Raises `NotReplayable`.
    """
    dead_letter = _claim(dead_letter_id, actor=actor, failures=failures, note=note)
    if copy is None:
        way = way_of(dead_letter, force=force)
    else:
        way = edited.way_of(dead_letter, copy)
        DeadLetter.objects.filter(pk=dead_letter_id).update(edited_as=copy.copy_id)
    return Claimed(dead_letter, way, retries, way.claim(dead_letter, retries))


def discard(dead_letter_id: int, *, reason: str, actor: str = "", failures: int | None = None) -> None:
    """Close the dead letter for good: its message will never run, and what waits behind it in its group moves on.

    `failures`: refused when it has failed again since it had so many.
    Raises `NotDiscardable` when there is no reason given, or the dead letter is not open.
    """
    reason = shortened(reason).strip()
    if not reason:
        raise NotDiscardable("a discard needs a reason")
    with transaction.atomic():
        changed = DeadLetter.objects.filter(_unchanged(failures), pk=dead_letter_id, state=State.OPEN).update(
            state=State.DISCARDED, closed_at=Now(), discard_reason=reason
        )
        dead_letter = _get(dead_letter_id, NotDiscardable)
        if not changed:
            raise NotDiscardable(_why_not(dead_letter))
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


def _claim(dead_letter_id: int, *, actor: str, failures: int | None = None, note: str = "") -> DeadLetter:
    """From open to replaying, once: of two operators one finds the WHERE false."""
    claimed = DeadLetter.objects.filter(_unchanged(failures), claimable(), pk=dead_letter_id).update(
        state=State.REPLAYING, replayed_at=Now()
    )
    dead_letter = _get(dead_letter_id, NotReplayable)
    if not claimed:
        raise NotReplayable(_why_not(dead_letter))
    dead_letter.happened(Happened.REPLAYED, actor=actor, note=note)
    return dead_letter


def _unchanged(failures: int | None) -> Q:
    return Q() if failures is None else Q(failures=failures)


def _why_not(dead_letter: DeadLetter) -> str:
    """Why its state does not allow it."""
    if dead_letter.state == State.OPEN:
        return f"{dead_letter.message_id} has failed again since it was chosen"
    return f"{dead_letter.message_id} is {dead_letter.state}, not open"


def silent() -> Q:
    """Dead letters whose replay has had no outcome for `SILENT_AFTER`."""
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
