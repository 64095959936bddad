"""What a full run leaves in docs/: its tables between the marks in benchmarks.md, and a plot beside it."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from lab.bench.figures import Figure
from lab.stack.stack import ROOT

T = TypeVar("T")
PAGE = ROOT / "docs" / "benchmarks.md"


def spread(values: Sequence[float], digits: int = 0) -> str:
    """The median, with the least and the most of several."""
    middle = f"{statistics.median(values):.{digits}f}"
    return f"{middle} ({min(values):.{digits}f}-{max(values):.{digits}f})" if len(values) > 1 else middle


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose first column is text and whose others are numbers."""
    lines = [heads, ["---", *("---:" for _ in heads[1:])], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def by_row(first: str, columns: Mapping[str, T], rows: Sequence[str], cell: Callable[[T, str], str]) -> str:
    """A table with a column for each of `columns` and `cell(column, row)` in it."""
    return table(
        [first, *columns], [[row, *(cell(column, row) for column in columns.values())] for row in rows]
    )


def with_goals(figures: Sequence[Figure]) -> str:
    """The figures as a table, each with its goal and whether it was met."""
    rows = [
        [
            figure.name.replace("|", "/"),
            f"{figure.value:.4g} {figure.unit}".strip(),
            figure.goal,
            "" if not figure.goal else ("met" if figure.met else "**missed**"),
        ]
        for figure in figures
    ]
    return table(["figure", "value", "goal", ""], rows)


def write(section: str, text: str, page: Path = PAGE) -> None:
    """Put the text between the marks of this section. Raises RuntimeError where the page has none."""
    before = page.read_text()
    begin, end = f"<!-- {section}: written by make bench -->\n", f"<!-- {section}: end -->\n"
    if begin not in before or end not in before:
        raise RuntimeError(f"{page.name} has no marks for {section}")
    pattern = f"{re.escape(begin)}.*?{re.escape(end)}"
    page.write_text(re.sub(pattern, lambda _: f"{begin}\n{text}\n{end}", before, flags=re.DOTALL))
