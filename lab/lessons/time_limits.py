"""The wrong way of docs/lessons/time-limits.md: `except Exception` also catches the soft time limit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

log = logging.getLogger(__name__)


def import_rows(rows: Iterable[str], place: Callable[[str], object]) -> None:
    """One bad row must not stop the others; but the limit is taken for a bad row, and the run goes on."""
    for row in rows:
        try:
            place(row)
        except Exception as error:
            log.info("%s is rejected: %s", row, error)
