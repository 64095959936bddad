"""The run's own servers, killed and started again on the same port."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def server_set(name: str, value: str) -> Iterator[None]:
    """The whole server has this setting, past every session that does not set it itself; at the end its own again.

    This test's own session keeps what it had: it could not undo the setting else, and goes on writing.
    """
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = off; SET synchronous_commit = local")
        cursor.execute(f"ALTER SYSTEM SET {name} = {value}")
        cursor.execute("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER SYSTEM RESET {name}")
            cursor.execute("SELECT pg_reload_conf()")
        connection.close()


@contextmanager
def refusing(table: str, sqlstate: str = "") -> Iterator[None]:
    """Every INSERT into the table is refused by the server with this SQLSTATE; default: that with which its name begins."""
    code = f"'{sqlstate}'" if sqlstate else "left(NEW.name, 5)"
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE OR REPLACE FUNCTION refuse_here() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN RAISE EXCEPTION 'refused here' USING ERRCODE = {code}; END $$"
        )
        cursor.execute(
            f"CREATE TRIGGER refuse_here BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION refuse_here()"
        )
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"DROP TRIGGER refuse_here ON {table}")
