"""`make` with a .venv that cannot be used, and with variables that it does not know."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from lab.stack.stack import ROOT

pytestmark = pytest.mark.slow


def make(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # `make test` hands its own flags down, and a make inside a make prints the directories it enters.
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    return subprocess.run(
        ["make", *arguments],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_venv_whose_python_is_gone_is_made_again(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("requirements.txt", "requirements-lab.txt"):
        (tmp_path / name).touch()  # installing nothing needs no network
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "up.py").write_text("print('it runs')\n")
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "python3"):
        (programs / name).symlink_to("/nowhere/python3")
    (programs / "pip").write_text("#!/nowhere/python3\n")
    (programs / "pip").chmod(0o755)
    (tmp_path / ".venv" / "installed-lab").touch()

    mended = make(tmp_path, "up")
    assert (mended.returncode, mended.stdout.splitlines()[-1:]) == (0, ["it runs"]), mended.stderr
    assert mended.stderr == "make: the Python of .venv is gone: making it again\n"

    again = make(tmp_path, "up")
    assert (again.stdout, again.stderr) == ("it runs\n", "")


def test_a_misspelt_variable_is_refused_by_name() -> None:
    refused = make(ROOT, "-n", "demo", "ORDER=5")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.endswith("there is no variable ORDER; docs/environment.md lists them.  Stop.\n")


@pytest.mark.parametrize(
    "given", ["ORDERS=5", "ARGS=-k relay x=y", "DATABASE_URL=postgres://db/shop", "PYTHON=python3"]
)
def test_a_variable_that_the_pages_name_is_taken(given: str) -> None:
    assert make(ROOT, "-n", "test", given).returncode == 0
