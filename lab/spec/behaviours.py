"""The behaviours that the articles show: a page says which code has each, its tests say so with a marker.

    @pytest.mark.described("the second call returns `already_processed`")

The marker repeats the first cell of a row of the page; `make spec` writes the tests into the last cell, and a table of all
into docs/SPEC.md.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.spec.rows import BadMarker, markers

PAGE = Path("docs") / "from-the-documents.md"
_ROW = re.compile(r"^\| (?P<behaviour>.+?) \| (?P<code>`.+?) \| .* \|$", re.MULTILINE)


def behaviours(root: Path) -> dict[str, list[str]]:
    """Behaviour -> its tests. Raises `BadMarker`."""
    found: dict[str, list[str]] = {}
    for test, marker in markers(root, "described"):
        try:
            (behaviour,) = map(ast.literal_eval, marker.args)
        except ValueError as error:
            raise BadMarker(f"{test}: a behaviour is one plain text") from error
        found.setdefault(behaviour, []).append(test)
    return found


def with_tests(page: str, found: Mapping[str, Sequence[str]]) -> str:
    """The page with the tests of each row. Raises `BadMarker` for a row without a test, and for a marker without a row."""
    rows = [row["behaviour"] for row in _ROW.finditer(page)]
    for behaviour in sorted(set(rows) ^ found.keys()):
        raise BadMarker(f"{PAGE}: {behaviour!r} has no {'test' if behaviour in rows else 'row'}")

    def anew(row: re.Match[str]) -> str:
        tests = ", ".join(f"`{test}`" for test in found[row["behaviour"]])
        return f"| {row['behaviour']} | {row['code']} | {tests} |"

    return _ROW.sub(anew, page)
