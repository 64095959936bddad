"""pytest plugin: a private, real PostgreSQL and Redis for each test run (``-p lab.pytest_stack``).

Django reads its settings when pytest-django starts, so the servers must be up, and their URLs in the environment,
before that. URLs that are already in the environment win. Of a run that pytest-xdist shares out, each process has servers
of its own, since there are tests that empty, kill and restart them.
"""

from __future__ import annotations

import os
import platform
import signal
import tempfile
from collections.abc import Generator
from importlib.metadata import version
from pathlib import Path
from types import FrameType

import psycopg2
import pytest
import redis
from django.db.backends.postgresql.psycopg_any import is_psycopg3

from lab.stack import Stack, StackError

_stack: Stack | None = None
#: Names what this plugin added to the environment, for the processes of pytest-xdist, which inherit it.
ADDED = "HOLDFAST_PYTEST_ADDED"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests() -> Generator[None, None, None]:
    """Start the servers; a wrapper, because pytest-django loads the settings in a ``tryfirst`` of this same hook."""
    global _stack
    # Under pytest a SIGTERM would end the process with no clean-up at all.
    signal.signal(signal.SIGTERM, _interrupt)
    if "PYTEST_XDIST_WORKER" in os.environ:
        for name in os.environ.get(ADDED, "").split():
            del os.environ[name]
    directory = Path(tempfile.mkdtemp(prefix="holdfast-test-"))
    directory.chmod(0o711)  # as root, the server runs as another user and must be able to pass
    _stack = Stack(directory, title="pytest", env_file=None, durable=False)
    try:
        _stack.start()
    except StackError as problem:
        _discard()
        raise pytest.UsageError(str(problem)) from None
    added = {name: value for name, value in _stack.environment.items() if os.environ.get(name) != value}
    os.environ.update(added, **{ADDED: " ".join(added)})
    try:
        return (yield)
    except BaseException:
        _discard()
        raise


def pytest_report_header() -> str:
    """Which combination this run says something about."""
    session = psycopg2.connect(os.environ["DATABASE_URL"])
    postgresql = session.info.parameter_status("server_version")
    session.close()
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
        store = client.info("server")["redis_version"]
    driver = "psycopg" if is_psycopg3 else "psycopg2-binary"
    packages = " ".join(f"{name} {version(name)}" for name in ("Django", driver, "celery", "kombu", "redis"))
    return (
        f"combination: Python {platform.python_version()} {packages}; PostgreSQL {postgresql} Redis {store}"
    )


def current() -> Stack:
    """The servers of this run, for tests that kill them."""
    assert _stack is not None
    return _stack


def pytest_unconfigure() -> None:
    _discard()


def _discard() -> None:
    global _stack
    if _stack is not None:
        _stack.stop()
        _stack.erase()
        _stack = None


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
