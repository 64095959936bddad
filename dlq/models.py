"""A dead letter is one message that ended badly; its events are its history.

Its state changes by guarded UPDATEs (the idea is solid_queue's). They are in `dlq.record` (open, reopen, resolve, cancel),
`dlq.replay` (claim, return, discard), `dlq.unanswered` (give a replay up) and `dlq.queue` (add); `dlq.retention` deletes
closed ones.
"""

from __future__ import annotations

from typing import Any

from celery import current_app
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import Q, Value
from django.db.models.functions import Now

from dlq import call
from dlq.masking import masked_text
from dlq.message import EDIT_HEADER, REPLAY_HEADER, RawMessage
from dlq.operations.models import Operation, OperationItem
from dlq.states import Cause, Happened, State

__all__ = [
    "LARGE",
    "SENT_BY_OTHERS",
    "Cause",
    "DeadLetter",
    "DeadLetterEvent",
    "GroupNote",
    "Happened",
    "LostRun",
    "Operation",
    "OperationItem",
    "State",
    "Total",
    "labels",
]

#: What a list of dead letters does not show, and must not load for every row: a message may have megabytes.
LARGE = ("raw", "traceback", "headers")


class DeadLetter(models.Model):
    """One message that ended badly: `message_id` is unique, a later failure of it reopens the same row."""

    message_id = models.CharField(
        max_length=255, unique=True, help_text="the message's own id, or 'sha256:' + digest where it has none"
    )
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)
    cause = models.CharField(max_length=12, choices=Cause.choices)
    task = models.CharField(max_length=255, blank=True, default="", help_text="empty: not known")
    queue = models.CharField(max_length=255, blank=True, default="")
    args = models.JSONField(null=True, blank=True, help_text="null: not known, see the raw message")
    kwargs = models.JSONField(null=True, blank=True, help_text="null: not known, see the raw message")
    # The database has the default, too: processes of the release before this one write without it.
    about = models.JSONField(
        default=list,
        db_default=Value([], models.JSONField()),
        blank=True,
        help_text="search terms: 'order_id=999' and '999'",
    )
    headers = models.JSONField(default=dict, blank=True)
    correlation_id = models.CharField(max_length=255, blank=True, default="")
    generation = models.BigIntegerField(
        null=True, blank=True, help_text="null: the message has no journal row"
    )
    # The database has the default, too: processes of the release before this one write without it.
    edited_as = models.CharField(
        max_length=255, blank=True, default="", db_default="", help_text="id of the edited copy that was sent"
    )
    exception = models.CharField(max_length=255, blank=True, default="", help_text="type, with its module")
    error = models.TextField(blank=True, default="")
    traceback = models.TextField(blank=True, default="")
    place = models.CharField(
        max_length=255, blank=True, default="", help_text="function of the application that raised"
    )
    fingerprint = models.CharField(max_length=64)
    attempts = models.PositiveIntegerField(default=1, help_text="runs until the last failure")
    failures = models.PositiveIntegerField(
        default=1, help_text="times it failed for good: 1 + failed replays"
    )
    worker = models.CharField(max_length=255, blank=True, default="")
    raw = models.BinaryField(
        null=True, blank=True, help_text="the message as it was received, see RawMessage"
    )
    raw_digest = models.CharField(max_length=64, blank=True, default="")
    failed_first_at = models.DateTimeField(db_default=Now())
    failed_at = models.DateTimeField(db_default=Now())
    replayed_at = models.DateTimeField(null=True, blank=True)
    closed_at = models.DateTimeField(null=True, blank=True)
    discard_reason = models.TextField(blank=True, default="")

    class Meta:
        ordering = ("-failed_at", "-id")
        permissions = (
            ("replay_deadletter", "Can replay dead letters"),
            ("edit_deadletter", "Can edit and replay dead letters"),
            ("discard_deadletter", "Can discard dead letters"),
            ("export_deadletter", "Can export dead letters"),
            ("view_raw_deadletter", "Can see and download messages as received, secrets included"),
        )
        indexes = (
            # What a desk asks all day is about unresolved dead letters: years of closed ones must not slow it down.
            models.Index(fields=["-failed_at", "-id"], name="dlq_unresolved", condition=Q(closed_at=None)),
            # With all that the groups, and most filters of the list, ask of them: an index alone answers in a tenth of the time.
            # The names in it are short enough together, whatever an outside producer writes; a queue more might not be.
            models.Index(
                fields=["fingerprint", "task", "exception"],
                include=["id", "state", "cause", "failed_first_at", "failed_at", "replayed_at"],
                name="dlq_group",
                condition=Q(closed_at=None),
            ),
            models.Index(fields=["-failed_at", "-id"], name="dlq_by_time"),
            models.Index(fields=["closed_at"], name="dlq_closed", condition=Q(closed_at__isnull=False)),
            GinIndex(fields=["about"], opclasses=["jsonb_path_ops"], name="dlq_about"),
            models.Index(fields=["correlation_id"], name="dlq_correlation", condition=~Q(correlation_id="")),
        )
        constraints = (
            models.CheckConstraint(name="dlq_known_state", condition=Q(state__in=State.values)),
            models.CheckConstraint(name="dlq_known_cause", condition=Q(cause__in=Cause.values)),
            models.CheckConstraint(
                name="dlq_closed_has_time",
                condition=Q(state__in=(State.RESOLVED, State.DISCARDED), closed_at__isnull=False)
                | Q(state__in=(State.OPEN, State.REPLAYING), closed_at=None),
            ),
            models.CheckConstraint(
                name="dlq_discard_has_reason", condition=~Q(state=State.DISCARDED) | ~Q(discard_reason="")
            ),
            models.CheckConstraint(
                name="dlq_replay_has_time", condition=~Q(state=State.REPLAYING) | Q(replayed_at__isnull=False)
            ),
            models.CheckConstraint(name="dlq_failed_at_least_once", condition=Q(failures__gte=1)),
        )

    def __str__(self) -> str:
        return f"{masked_text(self.task) or 'message'} {self.message_id} ({self.state})"

    @property
    def summary(self) -> str:
        """One line: `ExceptionType: message`."""
        first = self.error.strip().splitlines()[0] if self.error.strip() else ""
        name = self.exception.rpartition(".")[2]
        # A journal's error begins with it.
        return f"{name}: {first}" if name and first and not first.startswith(f"{name}: ") else first or name

    @property
    def call(self) -> str:
        """One line: `process_order(order_id=999)`, secrets masked."""
        # A task that this deployment does not have is a text that some producer wrote.
        name = masked_text(self.task).rpartition(".")[2]
        shown = call.arguments(self.task, self.args, self.kwargs)
        return f"{name}({shown})" if name or shown else ""

    @property
    def origin(self) -> str:
        """The id of the dead letter that its message was sent again from under an id of its own; '' for none."""
        found = str(self.headers.get(EDIT_HEADER) or self.headers.get(REPLAY_HEADER) or "")
        return "" if found == self.message_id else found

    @property
    def payload(self) -> Any:
        """What the work was given: the kwargs, or the args, or both where there are both; None: not known."""
        if self.args and self.kwargs:
            return {"args": self.args, "kwargs": self.kwargs}
        if self.kwargs is None or self.args:
            return self.args
        return self.kwargs

    @property
    def message(self) -> RawMessage | None:
        """The message as it was received, or None where only its parts are known."""
        return None if self.raw is None else RawMessage.load(bytes(self.raw))

    def happened(self, what: Happened, **details: Any) -> None:
        """Add an event to its history, under the queue and the task that it has now."""
        outside = self.generation is None and self.cause != Cause.ADDED
        queue, task = labels(self.queue, self.task, outside=outside)
        DeadLetterEvent.objects.create(
            dead_letter=self, what=what, queue=queue, task=task, generation=self.generation, **details
        )


#: Whether a dead letter's names are those that some producer wrote into the broker, and no journal's or application's.
SENT_BY_OTHERS = models.ExpressionWrapper(
    Q(generation=None) & ~Q(cause=Cause.ADDED), output_field=models.BooleanField()
)


def labels(queue: str, task: str, *, outside: bool) -> tuple[str, str]:
    """Queue and task as figures name them; `outside`: what this deployment does not know is "unknown".

    An outside producer may invent names without end, and each would be a series of the metrics for ever.
    """
    if not outside:
        return queue, task
    call.import_tasks()
    return (
        queue if queue in ("", *current_app.amqp.queues) else "unknown",
        task if task in ("", *current_app.tasks) else "unknown",
    )


class DeadLetterEvent(models.Model):
    """One step of a dead letter's history: who did what, when, and what came of it. Written once, never changed."""

    dead_letter = models.ForeignKey(
        DeadLetter, on_delete=models.CASCADE, related_name="events", db_column="letter_id"
    )
    at = models.DateTimeField(db_default=Now())
    what = models.CharField(max_length=10, choices=Happened.choices)
    actor = models.CharField(max_length=255, blank=True, default="", help_text="empty: the system")
    note = models.TextField(blank=True, default="")
    exception = models.CharField(max_length=255, blank=True, default="")
    traceback = models.TextField(blank=True, default="")
    attempts = models.PositiveIntegerField(null=True, blank=True)
    generation = models.BigIntegerField(null=True, blank=True)
    # The dead letter's own may be others later, and what was counted under these would be counted anew under those.
    # The database has the default, too: processes of the release before this one write without them.
    queue = models.CharField(max_length=255, blank=True, default="", db_default="")
    task = models.CharField(max_length=255, blank=True, default="", db_default="")

    class Meta:
        # Table and column keep their first names: processes of the release before use them during a deployment.
        db_table = "dlq_letterevent"
        ordering = ("id",)
        indexes = (models.Index(fields=["what", "at"], name="dlq_event_flow"),)
        constraints = (models.CheckConstraint(name="dlq_known_event", condition=Q(what__in=Happened.values)),)

    def __str__(self) -> str:
        return f"{self.what} at {self.at:%Y-%m-%d %H:%M:%S}"


class Total(models.Model):
    """Counts of the events that were deleted with their dead letters, so that totals are monotonic.

    Without it a counter would fall with each deletion, and Prometheus would take that for a restart of the counter.
    """

    queue = models.CharField(max_length=255, blank=True)
    task = models.CharField(max_length=255, blank=True)
    exception = models.CharField(max_length=255, blank=True)
    what = models.CharField(max_length=10, choices=Happened.choices)
    count = models.BigIntegerField()

    class Meta:
        db_table = "dlq_tally"  # processes of the release before read it during an upgrade
        constraints = (
            models.UniqueConstraint(fields=["queue", "task", "exception", "what"], name="dlq_tally_once"),
        )

    def __str__(self) -> str:
        return f"{self.count} {self.what} of {self.task}"


class GroupNote(models.Model):
    """What operators say of one problem, for the next one who is on call."""

    fingerprint = models.CharField(max_length=64, unique=True)
    text = models.CharField(max_length=500)
    actor = models.CharField(max_length=255)
    at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.text


class LostRun(models.Model):
    """Runs of a message without a journal that took their process down: what ends a poison message.

    Counted before the next run, when the broker redelivers the message.
    """

    message_key = models.CharField(max_length=255, unique=True)
    count = models.PositiveIntegerField(default=1)
    last_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = (models.Index(fields=["last_at"], name="dlq_lost_at"),)

    def __str__(self) -> str:
        return f"{self.message_key}: {self.count}"
