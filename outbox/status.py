"""The states of a message, and the sets of them that mean something. Importable before Django's apps are loaded."""

from __future__ import annotations

from django.db.models import TextChoices


class Status(TextChoices):
    SCHEDULED = "scheduled", "scheduled: its time has not come"
    BLOCKED = "blocked", "blocked: not the head of its group"
    PENDING = "pending", "pending: waits for the relay"
    PUBLISHED = "published", "published: handed to the broker, or running"
    DONE = "done", "done"
    DEAD = "dead", "dead: see the dead letters"
    CANCELLED = "cancelled", "cancelled"


#: Will still run, unless it is cancelled.
OPEN = (Status.SCHEDULED, Status.BLOCKED, Status.PENDING, Status.PUBLISHED)
#: A message in one of these is its group's head; the others of the group wait as blocked.
ACTIVE = (Status.SCHEDULED, Status.PENDING, Status.PUBLISHED)
#: Will not run any more, unless a dead one is replayed.
ENDED = (Status.DONE, Status.DEAD, Status.CANCELLED)


class Role(TextChoices):
    """Which kind of process a heartbeat row is of."""

    WORKER = "worker"
    RELAY = "relay"
    BEAT = "beat"
