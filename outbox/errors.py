"""What can go wrong at the outbox, as exceptions whose text says what to do."""

from __future__ import annotations

from typing import Any, TypeGuard

#: The longest delay: what is later is a mistake, and infinity would be a row that never runs.
MAX_DELAY_S = 10 * 365 * 86_400.0


def is_delay(value: Any) -> TypeGuard[float]:
    """Whether this is a number of seconds from 0 to ten years: neither infinity nor NaN, and no bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= MAX_DELAY_S


class Defer(Exception):
    """Raised inside a task: not now, again in `seconds`. It spends no attempt.

    For an open circuit, a held lock, a rate limit, or a 429 with Retry-After.
    """

    def __init__(self, seconds: float, reason: str = "") -> None:
        if not is_delay(seconds):
            raise ValueError(f"Defer takes a number of seconds from 0 to ten years, not {seconds!r}")
        super().__init__(seconds, reason)
        self.seconds = float(seconds)
        self.reason = reason

    def __str__(self) -> str:
        return f"deferred for {self.seconds:g} s" + (f": {self.reason}" if self.reason else "")


class EnqueueError(ValueError):
    """The message cannot be enqueued; nothing was written."""


class UnknownQueue(EnqueueError):
    def __init__(self, queue: str, known: tuple[str, ...]) -> None:
        super().__init__(f"queue {queue!r} is not in OUTBOX_QUEUES ({', '.join(known)})")


class NotAdopted(Exception):
    """A message of an outside producer is to run again and cannot become a row; it is for the dead-letter desk."""


class ForeignMessage(Exception):
    """A message without a row, of a task that `OUTBOX_FOREIGN_TASKS` does not name. It did not run."""

    #: Nothing in such a message is trusted, see `dlq.worker.failure`.
    unsolicited = True


class VersionSkew(Exception):
    """This version of the task does not take the message's arguments: sent by an older or a newer one."""


class ClaimLost(Exception):
    """Another run has taken the message over; what this run did must not be settled."""


class PoisonMessage(Exception):
    """The message was begun `max_deliveries` times, and no run reached its end."""

    #: What the dead-letter desk asks: the end is a lost run's, and no failure of the task's own.
    lost = True


class ResultNotKept(NotImplementedError):
    """There is no value to wait for: the project, or the task, keeps none."""
