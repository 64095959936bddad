"""The states of a message, and the sets of them that mean something. Importable before Django's apps are loaded."""

from __future__ import annotations

from datetime import UTC, datetime

from django.db.models import TextChoices


class Status(TextChoices):
    SCHEDULED = "scheduled", "scheduled: its time has not come"
    BLOCKED = "blocked", "blocked: not the head of its group"
    PENDING = "pending", "pending: waits for the relay"
    PUBLISHED = "published", "published: handed to the broker, or running"
    DONE = "done", "done"
    DEAD = "dead", "dead: see the dead letters"
    CANCELLED = "cancelled", "cancelled"


#: What is scheduled for then or later has a paused task, see `outbox.pausing`: no delay is so long.
PAUSED_UNTIL = datetime(9000, 1, 1, tzinfo=UTC)

#: Will still run, unless it is cancelled.
OPEN = (Status.SCHEDULED, Status.BLOCKED, Status.PENDING, Status.PUBLISHED)
#: A message in one of these is its group's head; the others of the group wait as blocked.
ACTIVE = (Status.SCHEDULED, Status.PENDING, Status.PUBLISHED)
#: Will not run any more, unless a dead one is replayed.
ENDED = (Status.DONE, Status.DEAD, Status.CANCELLED)


class Verb(TextChoices):
    """What an operator does to messages that wait."""

    PAUSE = "pause"
    RESUME = "resume"
    RUN_NOW = "run now"


class Role(TextChoices):
    """Which kind of process a heartbeat row is of."""

    WORKER = "worker"
    RELAY = "relay"
    BEAT = "beat"
