"""The periodic tasks that dlq/ needs, for whichever beat the project runs."""

from __future__ import annotations

from typing import Any

#: Task -> seconds between two runs.
TASKS = {"dlq.unanswered.reopen": 600.0}
#: The same, where the broker is RabbitMQ.
ON_RABBITMQ = {"dlq.undeliverable.collect": 60.0}


def connect(app: Any) -> None:
    """Add them to the beat schedule of this Celery application, now or when it is configured."""
    app.on_after_configure.connect(_add, weak=False)
    if app.configured:
        _add(app.conf)


def _add(source: Any, **_: Any) -> None:
    """A task for which the project has an entry of its own keeps that."""
    own = source.beat_schedule
    there = {entry["task"] if isinstance(entry, dict) else entry.task for entry in own.values()}
    is_rabbitmq = str(source.broker_url).startswith(("amqp", "pyamqp"))
    tasks = {**TASKS, **(ON_RABBITMQ if is_rabbitmq else {})}
    added = {
        task: {"task": task, "schedule": every_s} for task, every_s in tasks.items() if task not in there
    }
    source.beat_schedule = {**own, **added}
