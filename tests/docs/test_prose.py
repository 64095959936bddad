"""The prose linter of `make lint` sees a broken sentence, and only sentences."""

from pathlib import Path

import pytest
from proselint.checks import __register__ as checks
from proselint.registry import CheckRegistry

from lab import prose


@pytest.fixture(scope="module", autouse=True)
def _checks() -> None:
    CheckRegistry().register_many(checks)


@pytest.mark.parametrize(
    "sentence",
    [
        "The relay publishes the\nthe row again.",
        "It is a error of the worker.",
        "It is an worker.",
        "The message belongs into the outbox.",
        "The lease ends. Who comes later is refused.",
        "We could of published it.",
    ],
)
def test_a_broken_sentence_is_found_at_its_line(sentence: str) -> None:
    found = list(prose.problems(f"# Page\n\nA good sentence.\n\n{sentence}\n"))
    assert found
    assert {line for line, _ in found} <= {5, 6}


@pytest.mark.parametrize(
    "text",
    [
        "# Outbox\n\nOutbox messages are rows.\n",
        "```sh\nthe the\n```\n",
        "A row has `the the` in it.\n",
        "An order has one message, and a user has a unique name.\n",
        "| table |\n| --- |\n| 100 |\n",
    ],
)
def test_what_is_right_or_no_prose_is_left_alone(text: str) -> None:
    assert list(prose.problems(text)) == []


def test_a_broken_page_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = prose.ROOT / "README.md"
    monkeypatch.setattr(prose, "PAGES", [page])
    assert prose.main() == 0
    monkeypatch.setattr(prose, "problems", lambda text: [(3, "a phrase is repeated")])
    assert prose.main() == 1
    assert "README.md:3: a phrase is repeated" in capsys.readouterr().err


def test_a_test_name_of_thirteen_words_is_refused(tmp_path: Path) -> None:
    tests = tmp_path / "tests"
    tests.mkdir()
    words = [f"word{number}" for number in range(13)]
    methods = f"    def test_{'_'.join(words)}(self): ...\n    def test_{'_'.join(words[:12])}(self): ...\n"
    (tests / "test_it.py").write_text(f"class TestIt:\n{methods}")
    (found,) = prose.long_names(tests)
    assert found.startswith("tests/test_it.py:2: test_word0_")
