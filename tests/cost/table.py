"""The table of costs in docs/costs.md: one row a name under the heading of its section."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Mapping

from lab.stack.stack import ROOT
from tests.cost.counting import Cost

PAGE = ROOT / "docs" / "costs.md"
WRITE = "WRITE_COSTS=1 make test ARGS=tests/cost"
_ROW = re.compile(r"^\| `([^`]+)` \| (\d+) \| (\d+) \|$", re.MULTILINE)
_HEAD = "| name | statements | commits |\n|---|---:|---:|\n"


def compare(section: str, measured: Mapping[str, Cost]) -> None:
    """Assert that the section of the page says what was measured; with WRITE_COSTS=1 make it say so."""
    with PAGE.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # tests of two files may write side by side
        page = file.read()
        before, heading, rest = page.partition(f"\n## {section}\n")
        assert heading, f"{PAGE.name} has no section {section}"
        text, next_heading, after = rest.partition("\n## ")
        if os.environ.get("WRITE_COSTS") == "1":
            rows = [f"| `{name}` | {cost.statements} | {cost.commits} |\n" for name, cost in measured.items()]
            prose = text.partition("\n| name ")[0].rstrip("\n")
            file.seek(0)
            file.write(before + heading + prose + "\n\n" + _HEAD + "".join(rows) + next_heading + after)
            file.truncate()
            return
    written = {name: Cost(int(statements), int(commits)) for name, statements, commits in _ROW.findall(text)}
    changed = [
        f"{name}: {written.get(name, 'no row')} in {PAGE.name}, measured {measured.get(name, 'nothing')}"
        for name in [*measured, *(written.keys() - measured.keys())]
        if written.get(name) != measured.get(name)
    ]
    assert not changed, "\n".join([*changed, f"Is the change meant? Then write it down: {WRITE}"])
