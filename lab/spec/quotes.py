"""Quotes of code in the pages: each is named by a comment before its block, and `make spec` writes it anew from the file.

    <!-- quote: orders/lifecycle.py::claim -->
    <!-- quote: orders/lifecycle.py::claim from "with transaction" to "return None" -->

The first is a function or class without its docstring, or what a name of the module is set to; the second those of its lines
between the first that has the one text and the next that has the other. A line above the block names file and function, since
a rendered page does not show the comment.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

_QUOTE = re.compile(
    r'(?P<comment><!-- quote: (?P<path>[\w/.-]+)::(?P<name>[\w.]+)(?: from "(?P<first>.+?)" to "(?P<last>.+?)")? -->\n)'
    r"(?:\n`[^\n]+`:\n\n)?```python\n(?P<code>.*?)```\n",
    re.DOTALL,
)
_TABLE = re.compile(
    r"(?P<comment><!-- failures: (?P<tests>[\w/.: -]+) -->\n).*?(?P<end><!-- end of failures -->\n)",
    re.DOTALL,
)


_Quotable = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


class BadQuote(ValueError):
    """A quote names code that is not there."""


def with_quotes(page: str, root: Path) -> str:
    """The page with each of its quotes as the code is now, and its source above it. Raises `BadQuote`."""

    def anew(found: re.Match[str]) -> str:
        code = quoted(root, found["path"], found["name"], found["first"], found["last"])
        name = f"{'in ' if found['first'] else ''}`{found['name']}`"
        return f"{found['comment']}\n`{found['path']}`, {name}:\n\n```python\n{code}```\n"

    return _QUOTE.sub(anew, page)


def with_failures(page: str, lines: Callable[[list[str]], list[str]]) -> str:
    """The page with its failure tables; `lines` makes one of the paths of tests that a comment names."""

    def anew(found: re.Match[str]) -> str:
        table = "\n".join(lines(found["tests"].split()))
        return f"{found['comment']}\n{table}\n\n{found['end']}"

    return _TABLE.sub(anew, page)


def quotes(page: str) -> list[tuple[str, str]]:
    """Of each quote its path and its code, in their order on the page."""
    return [(found["path"], found["code"]) for found in _QUOTE.finditer(page)]


def quoted(root: Path, path: str, name: str, first: str | None = None, last: str | None = None) -> str:
    """The lines of `name` in the file at `path`. Raises `BadQuote`."""
    place, node = f"{path}::{name}", _node(root, path, name)
    lines = (root / path).read_text().splitlines(keepends=True)
    kept = [
        line
        for number, line in enumerate(lines[_start(node) - 1 : node.end_lineno], start=_start(node))
        if number not in _docstring(node, lines)
    ]
    if first and last:
        kept = _between(kept, first, last, place)
    return textwrap.dedent("".join(kept))


def span(root: Path, path: str, name: str) -> tuple[int, int]:
    """The first and the last line of `name` in the file at `path`. Raises `BadQuote`."""
    node = _node(root, path, name)
    return _start(node), node.end_lineno or _start(node)


def _node(root: Path, path: str, name: str) -> _Quotable:
    place = f"{path}::{name}"
    if not (root / path).is_file():
        raise BadQuote(f"{place}: there is no such file")
    node: ast.AST = ast.parse((root / path).read_text())
    for part in name.split("."):
        node = _part(node, part, place)
    assert isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign))
    return node


def _part(node: ast.AST, name: str, place: str) -> ast.AST:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.ClassDef)) and child.name == name:
            return child
        if isinstance(child, (ast.Assign, ast.AnnAssign)) and ast.unparse(child).startswith(
            (f"{name} =", f"{name}:")
        ):
            return child
    raise BadQuote(f"{place}: there is no {name}")


def _start(node: _Quotable) -> int:
    decorators = [] if isinstance(node, (ast.Assign, ast.AnnAssign)) else node.decorator_list
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _docstring(node: _Quotable, lines: list[str]) -> range:
    if isinstance(node, (ast.Assign, ast.AnnAssign)) or ast.get_docstring(node) is None:
        return range(0)
    end = node.body[0].end_lineno or 0
    # With the blank line behind it: ruff formats the code of pages, too, and has none there.
    return range(node.body[0].lineno, end + 1 if lines[end].strip() else end + 2)


def _between(lines: list[str], first: str, last: str, place: str) -> list[str]:
    begin = next((number for number, line in enumerate(lines) if first in line), None)
    if begin is None:
        raise BadQuote(f"{place}: no line has {first!r}")
    end = next((number for number, line in enumerate(lines[begin:], start=begin) if last in line), None)
    if end is None:
        raise BadQuote(f"{place}: no line from {first!r} on has {last!r}")
    return lines[begin : end + 1]
