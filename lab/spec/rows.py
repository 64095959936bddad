"""Reads the `promise` markers of the tests, without importing them: no database has to run for it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: What a test may say that it proves.
PROMISES = {
    "P1": "what was accepted is recorded",
    "P2": "nothing is lost",
    "P3": "nothing happens twice",
    "P4": "nothing is stuck",
    "P5": "no failure is hidden",
    "P6": "everything is bounded",
    "P7": "order is kept where it is promised",
    "P8": "an operator sees it and can act",
}


class BadMarker(ValueError):
    """A marker that names no promise, or says no row."""


@dataclass(frozen=True)
class Row:
    """One sentence of a promise: `when` this fails, `then` that happens; `tests` prove it, as pytest names them."""

    promise: str
    when: str
    then: str
    celery: str
    tests: tuple[str, ...]


def rows(root: Path) -> list[Row]:
    """Every row, by promise, in the order of the tests' names. Raises `BadMarker`."""
    tests: dict[tuple[str, str, str, str], list[str]] = {}
    for test, marker in markers(root, "promise"):
        tests.setdefault(_sentence(marker, test), []).append(test)
    found = [Row(*sentence, tests=tuple(named)) for sentence, named in tests.items()]
    return sorted(found, key=lambda row: row.promise)


def markers(root: Path, kind: str) -> Iterator[tuple[str, ast.Call]]:
    """Each test with each of its markers of this kind, by the names of their files."""
    for path in sorted((root / "tests").rglob("test_*.py")):
        yield from _markers(path, path.relative_to(root).as_posix(), f"pytest.mark.{kind}")


def _markers(path: Path, name: str, kind: str) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.parse(path.read_text()).body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        outer = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        for item in inside:
            if isinstance(item, ast.FunctionDef):
                for decorator in item.decorator_list:
                    if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == kind:
                        yield f"{name}::{outer}{item.name}", decorator


def _sentence(marker: ast.Call, test: str) -> tuple[str, str, str, str]:
    try:
        promise, when, then = (ast.literal_eval(argument) for argument in marker.args)
        said = {str(word.arg): ast.literal_eval(word.value) for word in marker.keywords}
        celery = said.pop("celery", "")
    except ValueError as error:
        raise BadMarker(
            f"{test}: a promise has a number, what fails and what happens then, as plain texts"
        ) from error
    if promise not in PROMISES or said:
        raise BadMarker(f"{test}: there is no promise {promise} {said or ''}".rstrip())
    return promise, when, then, celery
