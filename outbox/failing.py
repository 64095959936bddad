"""Which tasks fail at the moment: of each, the open messages whose last attempt failed."""

from __future__ import annotations

from dataclasses import dataclass

from celery import current_app
from django.db import connection

from outbox.enqueue import import_tasks
from outbox.sql import DONE

#: "Lately": as long as a few retries of most tasks take.
LATELY_S = 300.0


@dataclass
class TaskFigures:
    """One task. `retrying`: open messages whose last attempt failed; of them `failed` did so in the last `LATELY_S` seconds,
    in which `done` completed.
    """

    retrying: int = 0
    failed: int = 0
    done: int = 0


def complete(tasks: dict[str, TaskFigures]) -> dict[str, TaskFigures]:
    """The same with what completed lately, of the tasks that fail; under the names of this deployment's tasks.

    An invented name is "unknown", since each name is a series of the metrics for ever.
    """
    if not tasks:
        return {}
    # Only of tasks that fail, so that a sound system is not asked.
    failing = [task for task, counted in tasks.items() if counted.failed]
    if failing:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT task, count(*) FROM outbox_outboxmessage"
                " WHERE done_at > statement_timestamp() - %s * interval '1 second'"
                f" AND status = {DONE} AND task = ANY(%s) GROUP BY 1",
                [LATELY_S, failing],
            )
            for task, done in cursor.fetchall():
                tasks[task].done = done
    import_tasks()
    found: dict[str, TaskFigures] = {}
    for task, counted in tasks.items():
        total = found.setdefault(task if task in current_app.tasks else "unknown", TaskFigures())
        total.retrying += counted.retrying
        total.failed += counted.failed
        total.done += counted.done
    return found
