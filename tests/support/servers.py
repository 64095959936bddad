"""The run's own servers, killed and started again on the same port."""

from __future__ import annotations

import os
import signal

from django.db import connection

from lab import pytest_stack
from tests.support.processes import await_


def kill_postgres(*, immediate: bool = True) -> None:
    """`pg_ctl stop -m immediate`: every backend ends at once, and the next start recovers from the log."""
    server = pytest_stack.current()._postgres
    assert server is not None, "the run uses a PostgreSQL that is not its own"
    assert server._process is not None
    connection.close()
    os.kill(server._process.pid, signal.SIGQUIT if immediate else signal.SIGINT)
    await_(server.died, "PostgreSQL has ended")


def start_postgres() -> None:
    """Start what was killed; answers when it accepts connections."""
    pytest_stack.current().watch()


def kill_redis() -> None:
    server = pytest_stack.current()._redis
    assert server is not None, "the run uses a Redis that is not its own"
    assert server._process is not None
    os.kill(server._process.pid, signal.SIGKILL)
    await_(server.died, "Redis has ended")


def start_redis() -> None:
    pytest_stack.current().watch()
