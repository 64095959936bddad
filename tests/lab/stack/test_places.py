"""The embedded stack's data: where it lives when a path is too long, or closed to the servers' user."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import psycopg2
import pytest

from lab.stack import Stack
from lab.stack.postgres import Postgres
from lab.stack.stack import ROOT
from tests.lab.stack.support import HOLD, another_user, open_stack, query


def test_a_copied_directory_does_not_take_the_originals_data(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that was moved keeps its data."""
    monkeypatch.setattr("lab.stack.postgres._can_reach", lambda path, uid: False)
    monkeypatch.setattr("lab.stack.postgres._unprivileged_user", lambda: (os.getuid(), os.getgid()))
    monkeypatch.setattr("lab.stack.postgres.os.geteuid", lambda: 0)
    original = Postgres(directory / "postgres", password="", log=directory / "log", env={})
    home = original._prepare_home()
    try:
        assert home.parent == Path("/var/tmp")
        copy = Postgres(directory / "copy", password="", log=directory / "log", env={})
        shutil.copytree(original.directory, copy.directory)
        assert copy.home() == copy.directory
        copy.erase()
        assert home.exists()
        assert original.home() == home
        original.directory.rename(directory / "moved")
        assert Postgres(directory / "moved", password="", log=directory / "log", env={}).home() == home
    finally:
        shutil.rmtree(home)


def test_a_socket_path_of_any_length_is_no_problem(directory: Path) -> None:
    deep = directory.joinpath(*["a-rather-long-directory-name"] * 5)
    with open_stack(deep) as stack:
        assert query(stack.environment["DATABASE_URL"], "SELECT 1") == 1
    Stack(deep, title="test", env_file=None).erase()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_it_starts_for_an_unprivileged_user_too(directory: Path) -> None:
    packages = Path(psycopg2.__file__).parent.parent
    nobody, interpreter = another_user(packages)
    # The user needs a copy of the code it can read: this checkout may be under /root too.
    place = Path(tempfile.mkdtemp(prefix="hf-nobody-"))
    place.chmod(0o755)
    try:
        shutil.copytree(ROOT / "lab", place / "lab")
        (place / "state").mkdir()
        shutil.chown(place / "state", nobody.pw_uid, nobody.pw_gid)
        script = HOLD.replace("time.sleep(600)", "stack.stop()")
        ran = subprocess.run(
            [interpreter, "-c", script, str(place / "state")],
            cwd=place,
            user=nobody.pw_uid,
            group=nobody.pw_gid,
            extra_groups=[],
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": str(packages)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.stdout == "ready\n", ran.stderr
        assert ran.returncode == 0
    finally:
        shutil.rmtree(place)


@pytest.mark.skipif(os.geteuid() != 0, reason="root's own difficulty")
def test_erase_removes_the_data_that_root_keeps_elsewhere(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root keeps data in /var/tmp if the servers' user cannot reach the directory."""
    # As in a checkout under /root: neither the data directory nor the programs in .venv can be reached.
    monkeypatch.setattr("lab.stack.postgres._can_reach", lambda path, uid: False)
    with open_stack(directory) as stack:
        home = stack._postgres.home()
        assert home.parent == Path("/var/tmp")
        owner = (home / "data").stat().st_uid
        assert owner != 0, "PostgreSQL refuses to run as root"
    stack.erase()
    assert not home.exists()


@pytest.mark.parametrize(
    "text", ["", "\n", ".", "/", "/var/tmp", "/var/tmp/other", "/var/tmp/holdfast-postgres-x/.."]
)
def test_a_half_written_file_never_names_a_foreign_directory(tmp_path: Path, text: str) -> None:
    """A killed run leaves such a file.

    The named directory is erased and its servers are ended; an empty file would name the current one.
    """
    (tmp_path / "moved-to").write_text(text)
    assert Postgres(tmp_path, password="", log=tmp_path / "log", env={}).home() == tmp_path
