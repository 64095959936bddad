"""The living specification: every promise has tests, every marker a promise, and the pages say what the markers say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.spec.behaviours import PAGE, behaviours, with_tests
from lab.spec.pages import page_of, specification, with_table
from lab.spec.rows import PROMISES, BadMarker, Row, rows

ROOT = Path(__file__).resolve().parents[2]
REWRITE = "make spec writes it anew"


@pytest.fixture(scope="module")
def found() -> list[Row]:
    return rows(ROOT)


@pytest.mark.parametrize("promise", PROMISES)
def test_the_table_of_a_promise_is_what_the_tests_say(promise: str, found: list[Row]) -> None:
    own = [row for row in found if row.promise == promise]
    assert len(own) >= 5
    page = page_of(ROOT, promise).read_text()
    assert page == with_table(page, own), REWRITE


def test_the_specification_names_every_sentence_and_every_test(found: list[Row]) -> None:
    """The results differ by what ran on which machine; everything else is the same on all."""
    without_results = re.compile(r"\| [^|]*\|$", re.MULTILINE)
    written = (ROOT / "docs" / "SPEC.md").read_text()
    assert without_results.sub("", written) == without_results.sub(
        "", specification(found, behaviours(ROOT), {})
    ), REWRITE


def test_every_behaviour_of_the_articles_has_its_code_and_tests() -> None:
    page = (ROOT / PAGE).read_text()
    assert page == with_tests(page, behaviours(ROOT)), REWRITE


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ({"it runs once": ["tests/test_it.py::test_it"], "it ends": ["tests/test_it.py::test_it"]}, "no row"),
        ({}, "no test"),
    ],
)
def test_a_behaviour_without_a_row_or_a_test_is_refused(found: dict[str, list[str]], problem: str) -> None:
    with pytest.raises(BadMarker, match=problem):
        with_tests("| it runs once | `orders.tasks` |  |", found)


def test_no_recorded_result_is_a_failure() -> None:
    assert "| failed" not in (ROOT / "docs" / "SPEC.md").read_text()


@pytest.mark.parametrize(
    ("marker", "problem"),
    [
        ('"P9", "a relay is killed", "nothing is lost"', "there is no promise P9"),
        ('"P2", "a relay is killed"', "a promise has a number, what fails and what happens then"),
        ('"P2", WHEN, "nothing is lost"', "as plain texts"),
        (
            '"P2", "a relay is killed", "nothing is lost", proof=True',
            "there is no promise P2 {'proof': True}",
        ),
    ],
)
def test_a_marker_that_names_no_row_is_refused(marker: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(f"@pytest.mark.promise({marker})\ndef test_it(): ...\n")
    with pytest.raises(BadMarker, match=re.escape(problem)) as refused:
        rows(tmp_path)
    assert str(refused.value).startswith("tests/test_it.py::test_it: ")


def test_one_sentence_that_two_tests_prove_is_one_row(tmp_path: Path) -> None:
    marker = '@pytest.mark.promise("P2", "a relay is killed", "nothing is lost")\n'
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(
        f"{marker}def test_one(): ...\n\nclass TestIt:\n    {marker}    def test_two(self): ...\n"
    )
    assert rows(tmp_path) == [
        Row(
            "P2",
            "a relay is killed",
            "nothing is lost",
            "",
            ("tests/test_it.py::test_one", "tests/test_it.py::TestIt::test_two"),
        )
    ]
