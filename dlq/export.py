"""Dead letters as a file: JSON lines or CSV, a page of them in memory at a time, secrets masked."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from django.db.models import QuerySet

from dlq import stats
from dlq.models import DeadLetter

#: Columns of the CSV; the JSON lines have the events and tracebacks besides.
COLUMNS = (
    *(
        "message_id",
        "state",
        "cause",
        "task",
        "queue",
        "call",
        "exception",
        "error",
        "place",
        "attempts",
        "failures",
    ),
    *("worker", "correlation_id", "failed_first_at", "failed_at", "discard_reason"),
)
#: What a spreadsheet takes for a formula at the beginning of a cell.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def json_lines(dead_letters: QuerySet[DeadLetter]) -> Iterator[str]:
    """A line for each, with everything that may be shown of it."""
    for each in stats.exported(dead_letters):
        yield json.dumps(each, ensure_ascii=False) + "\n"


def csv_lines(dead_letters: QuerySet[DeadLetter]) -> Iterator[str]:
    """A heading, and a row for each. No cell is a formula."""
    yield _row(COLUMNS)
    for each in stats.exported(dead_letters):
        yield _row([_cell(each[name]) for name in COLUMNS])


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _row(cells: Any) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()
