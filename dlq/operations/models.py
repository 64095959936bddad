"""One action of an operator, such as a replay of many dead letters, and one row for each of them: what came of it."""

from __future__ import annotations

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class Kind(models.TextChoices):
    REPLAY = "replay", "replay"
    DISCARD = "discard", "discard"
    EDIT = "edit", "edit and replay"
    EXPORT = "export", "export"
    NOTE = "note", "note"


#: Kinds of which there is a selection to be sent or closed; the others are done when they are recorded.
BULK = (Kind.REPLAY, Kind.DISCARD)


class Progress(models.TextChoices):
    DRAFTED = "drafted", "drafted: waits for its confirmation"
    RUNNING = "running", "running"
    PAUSED = "paused", "paused by an operator"
    STOPPED = "stopped", "stopped by itself: too many failed again"
    CANCELLED = "cancelled", "cancelled: nothing more is sent"
    DONE = "done", "done: everything was sent, and every outcome is known"


class Outcome(models.TextChoices):
    WAITING = "waiting", "not sent"
    SENT = "sent", "sent, outcome not known yet"
    SUCCEEDED = "succeeded", "succeeded"
    FAILED = "failed", "failed again"
    UNKNOWN = "unknown", "sent, and given up without an outcome"
    DISCARDED = "discarded", "discarded"
    REFUSED = "refused", "refused"


#: Ends that an operator gives it; nothing is sent after them.
ENDED = (Progress.CANCELLED, Progress.DONE)
#: What may be resumed.
HELD = (Progress.PAUSED, Progress.STOPPED)


class Operation(models.Model):
    """A replay, discard or edit of exactly the dead letters that its items name; or the record of an export or a note."""

    kind = models.CharField(max_length=7, choices=Kind.choices)
    state = models.CharField(max_length=9, choices=Progress.choices, default=Progress.DRAFTED)
    actor = models.CharField(max_length=255, blank=True, default="", help_text="who asked for it")
    reason = models.TextField(blank=True, default="", help_text="why")
    chosen_by = models.TextField(blank=True, default="", help_text="how the dead letters were chosen")
    selected = models.PositiveIntegerField(default=0, help_text="dead letters that were chosen")
    canary = models.PositiveIntegerField(
        default=0, help_text="this many are sent first, and the others after their outcome; 0: no canary"
    )
    rate = models.PositiveIntegerField(default=0, help_text="most dead letters sent a second; 0: no limit")
    stop_above = models.PositiveSmallIntegerField(
        default=50,
        validators=[MinValueValidator(0), MaxValueValidator(100)],
        help_text="it stops when more than this percentage of those sent failed again; 100: never",
    )
    retries = models.PositiveIntegerField(
        null=True, blank=True, help_text="retries of each new run; empty: as many as its task says"
    )
    force = models.BooleanField(default=False, help_text="also messages that could not be read")
    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(
        null=True,
        blank=True,
        help_text="last start or resume: only what was sent since counts for the canary and for stopping",
    )
    stepped_at = models.DateTimeField(null=True, blank=True, help_text="last step")
    lease_until = models.DateTimeField(null=True, blank=True, help_text="lease of the step that sends now")
    ended_at = models.DateTimeField(null=True, blank=True)
    stopped_why = models.TextField(blank=True, default="")
    history = models.JSONField(default=list, blank=True, help_text="who did what to it, and when")
    turn = models.PositiveBigIntegerField(
        default=0, help_text="steps done: the message of an earlier step does nothing"
    )

    class Meta:
        ordering = ("-id",)
        indexes = (
            models.Index(
                fields=["stepped_at"], name="dlq_operation_running", condition=Q(ended_at__isnull=True)
            ),
        )
        constraints = (
            models.CheckConstraint(name="dlq_operation_known_kind", condition=Q(kind__in=Kind.values)),
            models.CheckConstraint(name="dlq_operation_known_state", condition=Q(state__in=Progress.values)),
            models.CheckConstraint(name="dlq_operation_share", condition=Q(stop_above__lte=100)),
            models.CheckConstraint(
                name="dlq_operation_started",
                condition=Q(state__in=(Progress.DRAFTED, Progress.CANCELLED)) | Q(started_at__isnull=False),
            ),
            models.CheckConstraint(
                name="dlq_operation_ended",
                condition=Q(state__in=ENDED, ended_at__isnull=False)
                | (~Q(state__in=ENDED) & Q(ended_at=None)),
            ),
            models.CheckConstraint(
                name="dlq_operation_discard_has_reason",
                condition=~Q(kind=Kind.DISCARD) | Q(state=Progress.DRAFTED) | ~Q(reason=""),
            ),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.pk} of {self.selected} ({self.state})"


class OperationItem(models.Model):
    """One chosen dead letter. Its key keeps out what came later; `failures` keeps out what failed again since."""

    operation = models.ForeignKey(Operation, on_delete=models.CASCADE, related_name="items")
    # The record of a dead letter may be deleted long after; what came of it here stays.
    dead_letter = models.ForeignKey(
        "dlq.DeadLetter", on_delete=models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False
    )
    failures = models.PositiveIntegerField(help_text="of the dead letter, when it was chosen")
    outcome = models.CharField(
        max_length=9, choices=Outcome.choices, default=Outcome.WAITING, db_default=Outcome.WAITING
    )
    sent_at = models.DateTimeField(null=True, blank=True)
    sent_as = models.CharField(
        max_length=255, blank=True, default="", db_default="", help_text="the id that it runs under"
    )
    why = models.TextField(blank=True, default="", db_default="", help_text="why it was refused")

    class Meta:
        ordering = ("id",)
        indexes = (
            models.Index(
                fields=["operation", "id"], name="dlq_item_waiting", condition=Q(outcome=Outcome.WAITING)
            ),
            models.Index(fields=["operation", "id"], name="dlq_item_sent", condition=Q(outcome=Outcome.SENT)),
        )
        constraints = (
            models.UniqueConstraint(fields=["operation", "dead_letter"], name="dlq_item_once"),
            models.CheckConstraint(name="dlq_item_known_outcome", condition=Q(outcome__in=Outcome.values)),
        )

    def __str__(self) -> str:
        return f"{self.dead_letter_id} of operation {self.operation_id}: {self.outcome}"
