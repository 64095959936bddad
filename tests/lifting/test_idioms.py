"""A project's idioms of Celery work, are ignored, or are refused by name: the table of docs/lifting.md is what is seen here.

`REWRITE=1 pytest -m proof tests/lifting/test_idioms.py` writes the table anew.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.lifting import idioms, observations
from tests.lifting.page import PAGE
from tests.lifting.project import PSYCOPG2, PSYCOPG3, Combination, made

pytestmark = pytest.mark.proof

BEGIN = "<!-- The table of idioms: REWRITE=1 pytest -m proof tests/lifting/test_idioms.py -->"
END = "<!-- The end of the table of idioms. -->"


@pytest.mark.parametrize("combination", [PSYCOPG3, PSYCOPG2], ids=str)
def test_what_becomes_of_each_idiom_is_the_table_of_the_page(
    combination: Combination, tmp_path: Path
) -> None:
    titles = "outbox/ and dlq/ together", "With django-celery-beat"
    with (
        made(
            tmp_path / "project", *titles, combination=combination, settings=observations.SETTINGS
        ) as project,
        project.processes("worker", "outbox_relay"),
    ):
        project.python(idioms.PREAMBLE)
        rows = [*idioms.sent(project), *observations.observed(project)]
    seen = table(rows)
    page = PAGE.read_text()
    begin, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    if os.environ.get("REWRITE"):
        PAGE.write_text(f"{page[:begin]}\n\n{seen}\n\n{page[end:]}")
    else:
        assert page[begin:end].strip() == seen, (
            f"docs/lifting.md says otherwise; to write it anew: {BEGIN[5:-4].partition(': ')[2]}"
        )


def table(rows: list[idioms.Row]) -> str:
    order = idioms.WORKS, idioms.IGNORED, idioms.REFUSED
    lines = [
        f"| {row.idiom} | {row.outcome} | {row.words} |"
        for outcome in order
        for row in rows
        if row.outcome == outcome
    ]
    assert len(lines) == len(rows)
    return "\n".join(["| Idiom | | |", "|---|---|---|", *lines])


def test_an_error_is_one_cell_with_the_same_words_each_run() -> None:
    said = "EnqueueError: shop.tasks.note: no idiom 7 | 8\nmore"
    assert idioms.shown(said) == "no … \\| 8"
    assert not re.search("[0-9a-f]{8}", idioms.shown("id 0f8fad5b-d9cb-469f-a165-70867728950e"))
