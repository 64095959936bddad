"""The periodic tasks that outbox/ needs, for whichever beat the project runs."""

from __future__ import annotations

from typing import Any

#: Task -> seconds between two runs.
TASKS = {"outbox.retention.prune": 600.0}


def connect(app: Any) -> None:
    """Add them to the beat schedule of this Celery application, now or when it is configured."""
    app.on_after_configure.connect(_add, weak=False)
    if app.configured:
        _add(app.conf)


def _add(source: Any, **_: Any) -> None:
    """A task for which the project has an entry of its own keeps that."""
    own = source.beat_schedule
    there = {entry["task"] if isinstance(entry, dict) else entry.task for entry in own.values()}
    added = {
        task: {"task": task, "schedule": every_s} for task, every_s in TASKS.items() if task not in there
    }
    source.beat_schedule = {**own, **added}
