"""`pip install` of a checkout: the wheel has the pattern folders, whole, and no other package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from lab.stack.stack import ROOT

FOLDERS = ("outbox", "dlq", "resilience", "monitoring", "idempotency", "webhooks/incoming")
#: What is no part of a checkout.
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "var", "build", "__pycache__", ".*_cache", "*.egg-info")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy, since setuptools writes beside the sources; by the setuptools of this environment."""
    directory = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, directory / "checkout", ignore=LEFT_OUT)
    built = subprocess.run(
        [
            sys.executable,
            *["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "-w"],
            directory,
            ".",
        ],
        cwd=directory / "checkout",
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = directory.glob("holdfast-*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture
def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return message_from_bytes(wheel.read(name))


def test_the_wheel_has_every_file_of_the_pattern_folders_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    files = {
        str(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in Path(ROOT, folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"outbox/migrations/0001_initial.py", "dlq/templates/admin/dlq/groups.html"} < files
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == files


def test_the_wheel_requires_bounds_that_its_users_can_meet(
    metadata: Message,
) -> None:
    """The database driver is their choice."""
    needed = metadata.get_all("Requires-Dist") or []
    assert all("==" not in line.partition(";")[0] and "<" not in line.partition(";")[0] for line in needed)
    assert not any("psycopg" in line for line in needed if "extra ==" not in line)
    assert {"psycopg2", "psycopg3"} <= set(metadata.get_all("Provides-Extra") or [])


def test_the_wheel_cannot_be_uploaded_by_mistake(metadata: Message) -> None:
    """The index refuses it: the name is somebody else's there."""
    assert "Private :: Do Not Upload" in (metadata.get_all("Classifier") or [])
