"""resilience/, file by file, in a project that has only this file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lifting.page import sections
from tests.lifting.project import made

pytestmark = pytest.mark.proof

FILES = [title for title in sections() if ".py: " in title]


@pytest.mark.parametrize("title", FILES, ids=lambda title: title.partition(":")[0])
def test_a_file_of_resilience_works_alone(title: str, tmp_path: Path) -> None:
    with made(tmp_path / "project", title) as project:
        assert (
            project.python("import sys; result = [name for name in sys.modules if name.startswith('config')]")
            == []
        )
