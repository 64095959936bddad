"""Fixtures of the embedded stack's tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.stack import Stack
from tests.lab.stack.support import SERVER_URLS


@pytest.fixture(autouse=True)
def no_servers_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test run's own servers are in the environment, where they would win."""
    for name in (*SERVER_URLS, "SECRET_KEY", "STRIPE_API_BASE", "SANDBOX_PORT", "SANDBOX_SMTP_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short, and with 0700 above it: what a checkout under /root looks like to another user."""
    parent = Path(tempfile.mkdtemp(prefix="hf-"))
    yield parent / "var"
    Stack(parent / "var", title="test", env_file=None).erase()
    shutil.rmtree(parent)
