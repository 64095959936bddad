"""django-tasks' task. Its workers are `python -m django db_worker`, one process each."""

from __future__ import annotations

from django_tasks import task

from lab.bench import effects


@task()
def write(number: int) -> None:
    """One row."""
    effects.write(number)
