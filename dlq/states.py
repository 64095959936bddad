"""The states of a dead letter, its causes, and the steps of its story. Their values are in the database."""

from __future__ import annotations

from django.db.models import TextChoices


class State(TextChoices):
    OPEN = "open", "open: waits for an operator"
    REPLAYING = "replaying", "replaying: was sent again, outcome not known yet"
    RESOLVED = "resolved", "resolved: a replay succeeded"
    DISCARDED = "discarded", "discarded: will never run, for the reason given"


class Cause(TextChoices):
    FAILED = "failed", "raised, or ran out of retries"
    TIMEOUT = "timeout", "hard time limit"
    LOST = "lost", "its worker process died"
    UNKNOWN_TASK = "unknown task", "no such task in this worker"
    UNDECODABLE = "undecodable", "body cannot be decoded"
    MALFORMED = "malformed", "not a task message"
    EXPIRED = "expired", "came after its expiry"
    REVOKED = "revoked", "revoked or terminated by an operator"
    ADDED = "added", "added by the application"


class Happened(TextChoices):
    FAILED = "failed", "failed"
    REPLAYED = "replayed", "replayed"
    REOPENED = "reopened", "failed again"
    RESOLVED = "resolved", "resolved"
    DISCARDED = "discarded", "discarded"
    RETURNED = "returned", "open again, without an outcome of its replay"
