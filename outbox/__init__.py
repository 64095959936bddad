"""Transactional outbox, inbox and journal for Celery: enqueue in your transaction, run at most once in effect."""

from outbox.app import Celery
from outbox.context import current, in_request, settling, traceparent
from outbox.enqueue import emit, enqueue, enqueue_many, enqueue_unique
from outbox.errors import Defer, EnqueueError

__all__ = [
    "Celery",
    "Defer",
    "EnqueueError",
    "current",
    "emit",
    "enqueue",
    "enqueue_many",
    "enqueue_unique",
    "in_request",
    "settling",
    "traceparent",
]
