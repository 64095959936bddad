"""Writes docs/SPEC.md and the failure tables of the promises' pages from the rows."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lab.spec.rows import PROMISES, Row

BEGIN, END = "<!-- made by `make spec` from the tests -->", "<!-- end of what `make spec` made -->"
_BETWEEN = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
_HEAD = """\
# Specification

What each promise says, sentence by sentence, and the test that proves the sentence. Written by `make spec` from the
`promise` and `described` markers of the tests; the last column is how the test ended when it last ran on the machine that
wrote this page (`make test` and `make proof` note it).
"""


def page_of(root: Path, promise: str) -> Path:
    """The page of a promise. Raises LookupError if there is none."""
    found = list((root / "docs" / "promises").glob(f"{promise.lower()}-*.md"))
    if len(found) != 1:
        raise LookupError(f"docs/promises/ has {len(found)} pages of {promise}")
    return found[0]


def with_table(page: str, rows: Sequence[Row]) -> str:
    """A promise's page with its failure table. Raises LookupError if the page has no place for it."""
    if not _BETWEEN.search(page):
        raise LookupError(f"the page has no place for its table: {BEGIN}")
    table = "\n".join((BEGIN, "", *failures(rows), "", END))
    return _BETWEEN.sub(lambda _: table, page)


def failures(rows: Sequence[Row]) -> list[str]:
    """The lines of a table: what fails, what happens, the tests; between them what Celery alone does, if a row says it."""
    celery = any(row.celery for row in rows)
    return _table(
        ("what fails, and when", *(["what Celery alone does"] if celery else []), "what happens", "test"),
        (
            (
                row.when,
                *([row.celery] if celery else []),
                row.then,
                ", ".join(f"`{test}`" for test in row.tests),
            )
            for row in rows
        ),
    )


def failures_of(rows: Sequence[Row], tests: Sequence[str]) -> list[str]:
    """A failure table of what the named tests or files of tests prove. Raises LookupError if they prove nothing."""
    own = [
        dataclasses.replace(row, tests=proof)
        for row in rows
        if (proof := tuple(test for test in row.tests if test.startswith(tuple(tests))))
    ]
    if not own:
        raise LookupError(f"no test of {' '.join(tests)} has a promise marker")
    return failures(own)


def specification(
    rows: Sequence[Row], described: Mapping[str, Sequence[str]], results: Mapping[str, Sequence[str]]
) -> str:
    """docs/SPEC.md: the promises, and then the behaviours that the articles show."""
    lines = [_HEAD]
    for promise, sentence in PROMISES.items():
        own = [row for row in rows if row.promise == promise]
        lines += [f"## {promise}: {sentence}", ""]
        lines += _table(
            ("sentence", "test", "last result"),
            (
                # A page of a promise is a folder deeper.
                (
                    f"{row.when}: {row.then}".replace("](../", "]("),
                    f"`{test}`",
                    ", ".join(results.get(test, ["not run yet"])),
                )
                for row in own
                for test in row.tests
            ),
        )
        lines.append("")
    lines += [
        "## What the articles show",
        "",
        "Which code has it: [the articles](from-the-documents.md).",
        "",
    ]
    lines += _table(
        ("behaviour", "test", "last result"),
        (
            (behaviour, f"`{test}`", ", ".join(results.get(test, ["not run yet"])))
            for behaviour, tests in described.items()
            for test in tests
        ),
    )
    return "\n".join([*lines, ""])


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    rule = ["---"] * len(head)
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *body)]
