"""Change Celery's own settings for a test, and put them back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery, current_app


@contextmanager
def celery_settings(app: Celery | None = None, **values: Any) -> Iterator[None]:
    """Have Celery's settings of these names (lower case) be `values` in the block.

    Writing the old value back, as monkeypatch does, would hide Django's settings of that name from every later test:
    Celery looks into what was written to `app.conf` first.
    """
    changes = (app or current_app).conf.changes
    before = dict(changes)
    changes.update(values)
    try:
        yield
    finally:
        changes.clear()
        changes.update(before)
