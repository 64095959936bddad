"""Celery looks for tasks in modules of this name."""

from dlq.operations.driver import advance
from dlq.unanswered import reopen
from dlq.undeliverable import collect

__all__ = ["advance", "collect", "reopen"]
