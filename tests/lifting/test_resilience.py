"""resilience/, file by file, in a project that has only this file."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.stack.stack import ROOT
from tests.lifting.page import sections
from tests.lifting.project import made

FILES = [title for title in sections() if ".py: " in title]

#: Needed by others, and no pattern.
CONNECTION = "connection.py"


def test_each_file_has_its_steps() -> None:
    there = {path.name for path in (ROOT / "resilience").glob("[a-z]*.py")} - {CONNECTION}
    assert there == {title.partition(":")[0] for title in FILES}


@pytest.mark.proof
@pytest.mark.parametrize("title", FILES, ids=lambda title: title.partition(":")[0])
def test_a_file_of_resilience_works_alone(title: str, tmp_path: Path) -> None:
    with made(tmp_path / "project", title) as project:
        assert (
            project.python("import sys; result = [name for name in sys.modules if name.startswith('config')]")
            == []
        )
