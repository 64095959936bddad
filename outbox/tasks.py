"""Celery looks for tasks in modules of this name."""

from outbox.retention import prune

__all__ = ["prune"]
