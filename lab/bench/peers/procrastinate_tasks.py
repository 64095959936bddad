"""procrastinate's task in Django. Its workers are `python -m django procrastinate worker`, one process each."""

from __future__ import annotations

from procrastinate.contrib.django import app

from lab.bench import effects


@app.task(name="write")
def write(number: int) -> None:
    """One row."""
    effects.write(number)
