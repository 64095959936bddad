"""One table is outbox, inbox and journal at once: one row is one message for its whole life.

Every change of a row's state is a function of `outbox.claims`, `outbox.transitions`, `outbox.dead_lettering`,
`outbox.groups` or `outbox.relay.queries`; the models exist for migrations, the admin and queries.
"""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q

from outbox.status import ACTIVE, ENDED, OPEN, PAUSED_UNTIL, Role, Status, Verb


class ClockTimestamp(models.Func):
    """The database's time *now*; `now()` would stand still inside a long transaction."""

    function = "clock_timestamp"
    output_field = models.DateTimeField()


class OutboxMessage(models.Model):
    """A message from the commit that caused it until it is settled; the broker is only its transport."""

    message_id = models.UUIDField(default=uuid.uuid4, unique=True, help_text="also the Celery task id")
    generation = models.IntegerField(db_default=1, help_text="rises with each retry, deferral and replay")
    task = models.TextField()
    args = models.JSONField(db_default=[])
    kwargs = models.JSONField(db_default={})
    headers = models.JSONField(db_default={})
    correlation_id = models.TextField(db_default="", blank=True)
    queue = models.TextField()
    ordering_key = models.TextField(db_default="", blank=True)
    passes_over_dead = models.BooleanField(db_default=False)
    dedup_key = models.TextField(db_default="", blank=True)
    status = models.TextField(choices=Status.choices)
    deliver_at = models.DateTimeField(db_default=ClockTimestamp())
    publish_count = models.IntegerField(db_default=0, help_text="publishes of this generation")
    attempts = models.IntegerField(db_default=0, help_text="runs that ended")
    deliveries = models.IntegerField(db_default=0, help_text="runs begun since one ended properly")
    duplicates = models.IntegerField(
        db_default=0, help_text="copies that were skipped; not those that came while it ran"
    )
    replays = models.IntegerField(db_default=0)
    created_at = models.DateTimeField(db_default=ClockTimestamp())
    published_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)
    done_at = models.DateTimeField(null=True)
    lease_token = models.UUIDField(null=True)
    lease_until = models.DateTimeField(null=True)
    #: The incarnation and the process that claimed it last, see `outbox.heartbeat.identity`.
    worker = models.TextField(db_default="", blank=True)
    errors = models.JSONField(db_default=[], help_text="the last errors, newest last")

    class Meta:
        ordering = ("-id",)
        # Every index but those on identity covers open states only, so that the cost of a message does
        # not grow with the rows that are done.
        indexes = (
            models.Index(fields=["queue", "id"], name="outbox_pending", condition=Q(status=Status.PENDING)),
            models.Index(
                fields=["deliver_at"], name="outbox_scheduled", condition=Q(status=Status.SCHEDULED)
            ),
            models.Index(
                fields=["ordering_key", "id"], name="outbox_blocked", condition=Q(status=Status.BLOCKED)
            ),
            models.Index(
                fields=["queue", "published_at"],
                name="outbox_unstarted",
                condition=Q(status=Status.PUBLISHED, started_at=None),
            ),
            models.Index(
                fields=["lease_until"],
                name="outbox_running",
                condition=Q(status=Status.PUBLISHED, started_at__isnull=False),
            ),
            models.Index(fields=["ordering_key"], name="outbox_dead", condition=Q(status=Status.DEAD)),
            models.Index(fields=["done_at"], name="outbox_settled", condition=Q(done_at__isnull=False)),
            models.Index(
                fields=["id"],
                name="outbox_repeated",
                condition=Q(generation__gt=1),
                include=["generation"],
            ),
            models.Index(
                fields=["correlation_id"], name="outbox_correlation", condition=~Q(correlation_id="")
            ),
        )
        constraints = (
            models.UniqueConstraint(
                fields=["ordering_key"],
                name="outbox_one_head_per_group",
                condition=Q(status__in=ACTIVE) & ~Q(ordering_key=""),
            ),
            models.UniqueConstraint(
                fields=["dedup_key"],
                name="outbox_one_open_per_dedup_key",
                condition=Q(status__in=OPEN) & ~Q(dedup_key=""),
            ),
            models.CheckConstraint(name="outbox_known_status", condition=Q(status__in=Status.values)),
            models.CheckConstraint(
                name="outbox_blocked_has_group", condition=~Q(status=Status.BLOCKED) | ~Q(ordering_key="")
            ),
            models.CheckConstraint(
                name="outbox_published_has_time",
                condition=~Q(status=Status.PUBLISHED) | Q(published_at__isnull=False),
            ),
            models.CheckConstraint(
                name="outbox_settled_has_time",
                condition=Q(status__in=ENDED, done_at__isnull=False) | Q(status__in=OPEN, done_at=None),
            ),
            models.CheckConstraint(
                name="outbox_lease_is_whole",
                condition=Q(lease_token=None, lease_until=None)
                | Q(lease_token__isnull=False, lease_until__isnull=False, started_at__isnull=False),
            ),
            models.CheckConstraint(
                name="outbox_lease_only_while_published",
                condition=Q(lease_token=None) | Q(status=Status.PUBLISHED),
            ),
        )

    def __str__(self) -> str:
        return f"{self.task} {self.message_id} ({self.status})"

    @property
    def is_paused(self) -> bool:
        """Whether it waits until an operator resumes its task."""
        return self.status == Status.SCHEDULED and self.deliver_at >= PAUSED_UNTIL


class Worker(models.Model):
    """One row per incarnation of a worker: its heartbeat and how far it has read each queue.

    A relay and a beat have one, too, told apart by `role`: nothing but their heartbeat.
    """

    incarnation = models.UUIDField(primary_key=True)
    role = models.TextField(choices=Role.choices, db_default=Role.WORKER)
    hostname = models.TextField()
    pid = models.IntegerField()
    started_at = models.DateTimeField(db_default=ClockTimestamp())
    beat_at = models.DateTimeField(db_default=ClockTimestamp())
    #: Queue -> publication time (epoch seconds) of the newest message that this worker received.
    received = models.JSONField(db_default={})
    concurrency = models.IntegerField(db_default=0)
    active = models.IntegerField(db_default=0)
    memory_bytes = models.BigIntegerField(
        db_default=0, help_text="resident memory of all its processes; 0: not known"
    )

    def __str__(self) -> str:
        return f"{self.hostname} (pid {self.pid})"


class RelayProcess(models.Model):
    """One row per relay. While one is idle, enqueueing wakes it; while all are busy, no commit pays for that."""

    incarnation = models.UUIDField(primary_key=True)
    idle = models.BooleanField(db_default=False)
    seen_at = models.DateTimeField(db_default=ClockTimestamp())

    def __str__(self) -> str:
        return str(self.incarnation)


class UnusableQueue(models.Model):
    """A queue that nothing is published to, while the others flow: the broker takes nothing for it, see
    `outbox.relay.queue_faults`, or an operator has paused it, see `outbox.pausing`.
    """

    queue = models.TextField(primary_key=True)
    reason = models.TextField()
    paused_by = models.TextField(
        db_default="", blank=True, help_text="the operator; empty: the broker refuses it"
    )
    since = models.DateTimeField(db_default=ClockTimestamp())
    seen_at = models.DateTimeField(db_default=ClockTimestamp(), help_text="when a relay last tried")

    def __str__(self) -> str:
        return f"{self.queue}: {self.reason}"


class PausedTask(models.Model):
    """A task of which nothing is published, see `outbox.pausing`; or one that was, and was resumed.

    The row stays, so that a relay which set a message aside at the moment of the resume is corrected by the next pass.
    """

    task = models.TextField(primary_key=True)
    paused_by = models.TextField(blank=True, help_text="the operator; empty: it was resumed")
    reason = models.TextField(blank=True)
    until = models.DateTimeField(unique=True, help_text="from then on its messages are scheduled")
    since = models.DateTimeField(db_default=ClockTimestamp())

    def __str__(self) -> str:
        return f"{self.task}: {self.reason}"


class OperatorAction(models.Model):
    """What an operator did, from a command or the admin: who, when, what and why. The rows are kept: they are few."""

    at = models.DateTimeField(db_default=ClockTimestamp())
    actor = models.TextField(blank=True)
    verb = models.TextField(choices=Verb.choices)
    target = models.TextField(help_text="a queue, a task, or how messages were chosen")
    messages = models.IntegerField(null=True, help_text="chosen to run now")
    reason = models.TextField(blank=True)

    class Meta:
        ordering = ("-id",)
        verbose_name = "operator's action"

    def __str__(self) -> str:
        return f"{self.verb} {self.target} by {self.actor or 'someone'}"


class Total(models.Model):
    """How many messages of a queue ended how, ever, by the time they took; see `outbox.totals`."""

    queue = models.TextField()
    status = models.TextField()
    bounds_kept = models.IntegerField(
        help_text="how many of the upper bounds in totals.BUCKETS these messages kept"
    )
    count = models.BigIntegerField()
    latency_s = models.FloatField()
    counted_until = models.DateTimeField()

    class Meta:
        db_table = "outbox_tally"  # processes of the release before read it during an upgrade
        constraints = (
            models.UniqueConstraint(fields=["queue", "status", "bounds_kept"], name="outbox_tally_once"),
        )

    def __str__(self) -> str:
        return f"{self.count} {self.status} in {self.queue}"


class Skipped(models.Model):
    """How many copies were skipped for this reason, ever: also those whose row was held, or is gone."""

    reason = models.TextField(primary_key=True)
    count = models.BigIntegerField()

    class Meta:
        verbose_name_plural = "skipped"

    def __str__(self) -> str:
        return f"{self.count} {self.reason}"


class Schedule(models.Model):
    """The cursor of one periodic task: every tick before `next_at` has its message."""

    name = models.TextField(primary_key=True)
    next_at = models.DateTimeField()
    #: The schedule's definition; when it changes, the cursor moves to an earlier tick, never to a later one.
    spec = models.TextField(db_default="")

    def __str__(self) -> str:
        return self.name
