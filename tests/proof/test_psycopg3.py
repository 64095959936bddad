"""The outbox and the dead letters hold with psycopg 3, too: their own tests, in an environment where Django finds it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from lab.stack.stack import ROOT
from tests.lifting import interpreters

PINNED = [ROOT / f"requirements{part}.txt" for part in ("", "-lab", "-dev")]
TESTS = ("tests/outbox", "tests/dlq")


def environment() -> Path:
    """This one's requirements and psycopg 3, which Django takes where both are installed: the lab needs psycopg 2.

    A shell's comment names what is pinned, so that a cached environment is of these versions.
    """
    pinned = hashlib.sha256(b"".join(path.read_bytes() for path in PINNED)).hexdigest()
    line = f"pip install -r '{ROOT}/requirements-dev.txt' 'psycopg[binary]>=3.2.4' # {pinned}"
    return interpreters.or_skip(Path(sys.executable).resolve(), [line])


@pytest.mark.proof
@pytest.mark.alone
def test_outbox_and_dlq_pass_their_tests_with_psycopg_3() -> None:
    run = subprocess.run(
        [
            *(environment() / "bin/python", "-m", "pytest", *TESTS, "-m", "not proof and not slow"),
            *("--numprocesses", "2", "--dist", "loadfile", "--color", "no"),
        ],
        cwd=ROOT,
        env=interpreters.clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert " psycopg 3." in run.stdout, run.stdout
    assert run.returncode == 0, run.stdout
