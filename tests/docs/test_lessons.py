"""The lessons: one order of sections, wrong ways and right ways that are short, quoted and seen to run."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from lab.spec.quotes import BadQuote, quoted, quotes, with_quotes

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted((ROOT / "docs" / "lessons").glob("*.md"))
SECTIONS = [
    "The wrong way",
    "How it breaks",
    "The right way",
    "Promised, and not",
    "When something fails",
    "Settings",
    "What to copy",
    "Break it here",
]
MOST_LINES = {"The wrong way": 12, "How it breaks": 15, "The right way": 15}


def sections(page: Path) -> dict[str, str]:
    head, *parts = re.split(r"^## (.+)\n", page.read_text(), flags=re.MULTILINE)
    return {"": head, **dict(zip(parts[::2], parts[1::2], strict=True))}


@pytest.mark.parametrize("page", LESSONS, ids=lambda page: page.stem)
def test_a_lesson_has_all_sections_and_short_quotes(page: Path) -> None:
    parts = sections(page)
    assert list(parts)[1:] == SECTIONS
    for title, most in MOST_LINES.items():
        found = quotes(parts[title])
        assert found, f"{title}: nothing is quoted"
        for path, code in found:
            assert len(code.splitlines()) <= most, f"{title}: {path}"
    assert [path for path, _ in quotes(parts["The right way"]) if path.startswith(("lab/", "tests/"))] == []


@pytest.mark.parametrize("page", LESSONS, ids=lambda page: page.stem)
def test_a_lesson_tests_its_wrong_way_and_its_right_way(page: Path) -> None:
    tests = ROOT / "tests" / "lessons" / f"test_{page.stem.replace('-', '_')}.py"
    names = [
        node.name for node in ast.walk(ast.parse(tests.read_text())) if isinstance(node, ast.FunctionDef)
    ]
    assert any(name.startswith("test_wrong_") for name in names)
    assert any(name.startswith("test_right_") for name in names)
    assert f"tests/lessons/{tests.name}::test_wrong_" in page.read_text()


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.stem)
def test_every_quote_is_the_code_as_it_is_now(page: Path) -> None:
    assert page.read_text() == with_quotes(page.read_text(), ROOT), "make spec writes it anew"


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("", "`outbox/retry_policy.py`, `RetryPolicy.delay_s`:"),
        (' from "ceiling =" to "return"', "`outbox/retry_policy.py`, in `RetryPolicy.delay_s`:"),
    ],
)
def test_the_source_of_a_quote_is_seen_above_it(part: str, source: str) -> None:
    comment = f"<!-- quote: outbox/retry_policy.py::RetryPolicy.delay_s{part} -->\n"
    page = with_quotes(f"{comment}```python\n```\n", ROOT)
    assert page.startswith(f"{comment}\n{source}\n\n```python\n")
    assert with_quotes(page, ROOT) == page
    wrong = page.replace("`outbox/retry_policy.py`", "`outbox/task.py`")
    assert with_quotes(wrong, ROOT) == page


@pytest.mark.parametrize(
    ("path", "name", "first", "last", "problem"),
    [
        ("lab/nowhere.py", "process_order", None, None, "there is no such file"),
        ("lab/lessons/state_check.py", "nothing", None, None, "there is no nothing"),
        (
            "lab/lessons/state_check.py",
            "process_order",
            "payment",
            "no such line",
            "no line from 'payment' on has",
        ),
    ],
)
def test_a_quote_of_nothing_is_refused(path: str, name: str, first: str, last: str, problem: str) -> None:
    with pytest.raises(BadQuote, match=re.escape(problem)):
        quoted(ROOT, path, name, first, last)
