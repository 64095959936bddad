"""Celery looks for tasks in modules of this name."""

from dlq.undeliverable import collect

__all__ = ["collect"]
