"""The wrong way of docs/lessons/dead-letters.md: the task's own hook records that it failed."""

from __future__ import annotations

from typing import Any

from celery import Task

from dlq.queue import DeadLetterQueue


class Recorded(Task):
    """Celery acknowledges the message whether the hook ran, raised, or was never called."""

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        DeadLetterQueue.add(job_id=task_id, queue="orders", payload=args, error=str(exc))
