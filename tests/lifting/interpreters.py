"""Interpreters and virtual environments of the scratch projects."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from lab.stack.stack import VAR

#: Kept between runs: a hash of the interpreter and of the page's pip lines names each.
CACHE = VAR / "lifting"


class NoIndex(Exception):
    """pip could not install, which says nothing about the page."""


def find(version: str) -> Path | None:
    """The interpreter of this version ("3.13"): on PATH, or among pyenv's; None where there is none."""
    if version == "{}.{}".format(*sys.version_info):
        return Path(sys.executable).resolve()
    candidates = [Path(found)] if (found := shutil.which(f"python{version}")) else []
    if shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=False).stdout.strip()
        candidates += sorted(Path(root, "versions").glob(f"{version}*/bin/python{version}"))
    # What pyenv puts on PATH refuses where no such version is chosen.
    return next((path for path in candidates if _works(path)), None)


def _works(path: Path) -> bool:
    asked = subprocess.run([path, "-c", "import venv, ensurepip"], capture_output=True, check=False)
    return asked.returncode == 0


def clean_environment() -> dict[str, str]:
    """What a reader's terminal has: nothing of this application's settings, nor of the virtual environment here."""
    kept = ("HOME", "PATH", "LANG", "TMPDIR", "USER")
    prefixes = ("PIP_", "SSL_", "REQUESTS_", "LC_")
    proxies = ("http_proxy", "https_proxy", "no_proxy")
    return {
        name: value
        for name, value in os.environ.items()
        if name in kept or name.startswith(prefixes) or name.lower() in proxies
    }


def virtual_environment(python: Path, requirements: Sequence[str]) -> Path:
    """A virtual environment with exactly what these lines of `pip install` bring; made once, then taken from the cache.

    Raises NoIndex with pip's reason.
    """
    named = "\n".join([str(python), *requirements])
    directory = CACHE / hashlib.sha256(named.encode()).hexdigest()[:16]
    CACHE.mkdir(parents=True, exist_ok=True)
    # Not under another name first: the programs of a virtual environment know where they are.
    with open(CACHE / f"{directory.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "complete").exists():
            subprocess.run([python, "-m", "venv", "--clear", directory], check=True, env=clean_environment())
            for line in requirements:
                _install(directory, line)
            (directory / "complete").write_text(named)
    return directory


def _install(environment: Path, line: str) -> None:
    """Run one `pip install …`. Raises NoIndex."""
    done = subprocess.run(
        [
            "sh",
            "-c",
            line.replace("pip install", f'"{environment}/bin/python" -m pip install --quiet --no-input'),
        ],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise NoIndex(f"`{line}` failed: {reason}")


def or_skip(python: Path, requirements: Sequence[str]) -> Path:
    """The same; without a package index the test is skipped, and under CI it fails."""
    try:
        return virtual_environment(python, requirements)
    except NoIndex as problem:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(problem))
