"""The dead-letter queue as an application sees it: add, look, replay, edit, discard, purge."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from typing import Any

from django.db import connection, transaction
from django.db.models import QuerySet

from dlq import record, replay
from dlq.masking import masked_text
from dlq.message import text
from dlq.models import LARGE, DeadLetter, Happened, Operation, State
from dlq.operations import control, selection
from dlq.operations.edit import edit
from dlq.operations.models import Kind

MAX_KEY_LENGTH = 255
#: What is on record for dead letters that were purged without a reason.
PURGED = "purged with all open dead letters"


class DeadLetterQueueFull(Exception):
    """`add` was refused: the queue holds `max_size` open dead letters. Replay, discard or purge before adding more."""


class NoSuchDeadLetter(LookupError):
    """No dead letter has this job id."""


@dataclass(frozen=True)
class Entry:
    """One open dead letter, as it was when it was read."""

    job_id: str
    task_name: str
    queue: str
    payload: Any
    error: str
    exception: str
    attempts: int
    failures: int
    failed_at: datetime


class DeadLetterQueue:
    """All open dead letters. `DeadLetterQueue.add(...)` and `DeadLetterQueue(max_size=100).add(...)` both work.

    `max_size` bounds what `add` takes and nothing else: a message that ended badly in a worker is recorded
    however many there are, since refusing it would lose it.
    """

    max_size = 10_000

    def __init__(self, *, max_size: int = max_size) -> None:
        self.max_size = max_size
        self.add = partial(self.add, max_size=max_size)  # type: ignore[method-assign]

    @staticmethod
    def add(job_id: Any, queue: str, payload: Any, error: str, *, max_size: int = max_size) -> Entry:
        """Put a failed job aside; a dict as payload becomes its keyword arguments, a list its arguments.

        The same `job_id` again reopens its dead letter, or changes nothing while it is open. Raises
        `DeadLetterQueueFull`, and `ValueError` for what cannot be a job id.
        """
        key = text(job_id)
        if not 0 < len(key) <= MAX_KEY_LENGTH:
            raise ValueError(f"a job id has 1 to {MAX_KEY_LENGTH} characters, not {len(key)}")
        keyword = isinstance(payload, dict)
        arguments = list(payload) if isinstance(payload, (list, tuple)) else [payload]
        values = record.added(
            queue=queue,
            args=None if keyword else arguments,
            kwargs=payload if keyword else None,
            error=error,
        )
        with transaction.atomic():
            with connection.cursor() as cursor:
                # One at a time: counting and then inserting would let two past the bound.
                cursor.execute("SELECT pg_advisory_xact_lock(hashtext('dlq.add'))")
            open_dead_letters = DeadLetter.objects.filter(state=State.OPEN)
            if (
                open_dead_letters.count() >= max_size
                and not open_dead_letters.filter(message_id=key).exists()
            ):
                raise DeadLetterQueueFull(
                    f"the dead-letter queue holds {max_size} open dead letters, its max_size"
                )
            dead_letter, created = DeadLetter.objects.select_for_update().get_or_create(
                message_id=key, defaults=values
            )
            if created:
                dead_letter.happened(Happened.FAILED, note=dead_letter.error, attempts=1)
            elif dead_letter.state != State.OPEN:
                record.reopen_with(dead_letter, values)
        dead_letter.refresh_from_db()
        return _entry(dead_letter)

    @staticmethod
    def all() -> list[dict[str, Any]]:
        """Every open dead letter, the last failure first."""
        dead_letters = DeadLetter.objects.filter(state=State.OPEN).defer(*LARGE)
        return [asdict(_entry(dead_letter)) for dead_letter in dead_letters]

    @staticmethod
    def peek(count: int = 20) -> list[Entry]:
        """The `count` open dead letters that failed last."""
        dead_letters = DeadLetter.objects.filter(state=State.OPEN).defer(*LARGE)
        return [_entry(dead_letter) for dead_letter in dead_letters[: max(count, 0)]]

    @staticmethod
    def replay(job_id: Any = None, retries: int | None = 3, *, task_id: Any = None, actor: str = "") -> str:
        """Run it again, with up to `retries` retries (None: as many as its task says). Returns the id it runs under.

        `task_id`: another name for `job_id`. Raises `NoSuchDeadLetter`, or `dlq.replay.NotReplayable` with the reason.
        """
        if (job_id is None) == (task_id is None):
            raise TypeError("replay takes one id, as job_id or as task_id")
        return replay.replay(_known(task_id if job_id is None else job_id), actor=actor, retries=retries)

    @staticmethod
    def discard(job_id: Any, reason: str, *, actor: str = "") -> None:
        """Close it for good. Raises `NoSuchDeadLetter`, or `dlq.replay.NotDiscardable` with the reason."""
        replay.discard(_known(job_id), reason=reason, actor=actor)

    @staticmethod
    def edit(
        job_id: Any,
        changes: Mapping[str, Any],
        *,
        without: Collection[str] = (),
        reason: str = "",
        actor: str = "",
        retries: int | None = None,
    ) -> str:
        """Run a copy with these arguments changed, by name, and those in `without` left out. Returns the id that it runs under.

        What is not named stays; the dead letter keeps its own arguments, and is resolved when the copy has ended. `retries`:
        None, as many as the task says. Raises `NoSuchDeadLetter`, `dlq.arguments.InvalidArgument` with the name of an argument
        that the task does not take like this, or `dlq.replay.NotReplayable` with the reason.
        """
        done = edit(_known(job_id), changes, without=without, actor=actor, reason=reason, retries=retries)
        return str(done.items.values_list("sent_as", flat=True).get())

    @staticmethod
    def operate(
        kind: str, dead_letters: QuerySet[DeadLetter], *, actor: str = "", **options: Any
    ) -> Operation:
        """Replay or discard many in the background: exactly those that match now. The workers send them.

        `kind`: "replay" or "discard". `options`: those of `dlq.operations.control.start`, such as `canary`, `rate` and `reason`;
        `dlq.operations.control` pauses, resumes and cancels what is returned.
        """
        drafted = selection.draft(Kind(kind), dead_letters, actor=actor, chosen_by="DeadLetterQueue")
        return control.start(drafted, actor=actor, **options)

    @staticmethod
    def purge(reason: str = PURGED, *, actor: str = "") -> int:
        """Discard every open dead letter for this reason; they stay on record as discarded. Returns how many."""
        purged = 0
        for pk in list(DeadLetter.objects.filter(state=State.OPEN).values_list("pk", flat=True)):
            try:
                replay.discard(pk, reason=reason, actor=actor)
            except replay.NotDiscardable:
                if not reason.strip():
                    raise
                continue  # replayed or discarded by somebody else meanwhile
            purged += 1
        return purged


def _known(job_id: Any) -> int:
    """The key of its dead letter: the id as `add` stores it, so that any text is at worst an unknown id."""
    found = DeadLetter.objects.filter(message_id=text(job_id)).values_list("pk", flat=True).first()
    if found is None:
        raise NoSuchDeadLetter(f"no dead letter has the job id {job_id!r}")
    return found


def _entry(dead_letter: DeadLetter) -> Entry:
    return Entry(
        job_id=dead_letter.message_id,
        task_name=dead_letter.task,
        queue=dead_letter.queue,
        payload=dead_letter.payload,
        error=masked_text(dead_letter.error),
        exception=dead_letter.exception,
        attempts=dead_letter.attempts,
        failures=dead_letter.failures,
        failed_at=dead_letter.failed_at,
    )
