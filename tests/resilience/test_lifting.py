"""The folder's promise about itself: a pattern is lifted by copying its file."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

PATTERNS = sorted(path.stem for path in Path(settings.BASE_DIR, "resilience").glob("[a-z]*.py"))
ALONE = {"breaker", "retry", "connection"}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_works_in_another_project_with_its_file_and_at_most_the_connection(
    pattern: str, tmp_path
) -> None:
    package = tmp_path / "theirs"
    package.mkdir()
    (package / "__init__.py").touch()
    for name in {pattern} if pattern in ALONE else {pattern, "connection"}:
        shutil.copy(Path(settings.BASE_DIR, "resilience", f"{name}.py"), package)
    script = f"from django.conf import settings; settings.configure(); import theirs.{pattern}"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
