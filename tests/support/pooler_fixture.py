"""pytest plugin: the fixture `pooler`, a PgBouncer in transaction mode before the test database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import psycopg2
import pytest
from django.db import connection

from lab.stack.errors import StackError
from lab.stack.pgbouncer import PgBouncer, find_pooler
from tests.support.brokers import private_directory
from tests.support.processes import environment

#: Of the server, for all clients of the pooler.
SESSIONS = 3
#: What an operator sets where a pooler drops the options of a connection (docs/operations.md).
TIMEOUTS = {"lock_timeout": "10s", "idle_in_transaction_session_timeout": "30s"}


@pytest.fixture(scope="session")
def unprepared_pooler(django_db_setup: None) -> Iterator[PgBouncer]:
    """The run's own pooler: three sessions of the database for all its clients, which lack the timeouts of ours."""
    try:
        find_pooler()
    except StackError as missing:
        # The run that decides about a release must not pass over the pooler.
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(missing))
    # In turn, so that a client meets another session with each transaction, and not only under load.
    with a_pooler({"server_round_robin": "1"}) as pooler:
        yield pooler


@contextmanager
def a_pooler(settings: dict[str, str]) -> Iterator[PgBouncer]:
    """One of a test's own, with these settings of PgBouncer."""
    with private_directory() as directory:
        pooler = PgBouncer(
            directory / "pgbouncer",
            database_url=environment()["DATABASE_URL"],
            log=directory / "log",
            env=dict(os.environ),
            pool_size=SESSIONS,
            settings=settings,
        )
        pooler.start()
        try:
            yield pooler
        finally:
            pooler.stop()


@pytest.fixture
def pooler(unprepared_pooler: PgBouncer, transactional_db: None) -> Iterator[PgBouncer]:
    """It, before sessions that have the timeouts, as the docs ask for."""
    name = connection.ops.quote_name(str(connection.settings_dict["NAME"]))
    with connection.cursor() as cursor:
        for setting, value in TIMEOUTS.items():
            cursor.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'")
    reconnect(unprepared_pooler)
    yield unprepared_pooler
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {name} RESET ALL")
    unprepared_pooler.control("RECONNECT")


def reconnect(pooler: PgBouncer) -> None:
    """Give it new sessions, all that it may have: with one for all clients a test would see nothing."""
    pooler.control("RECONNECT")
    with ExitStack() as closing_all:
        clients = [
            closing_all.enter_context(closing(psycopg2.connect(pooler.url()))) for _ in range(SESSIONS)
        ]
        sessions = set()
        for client in clients:
            cursor = client.cursor()
            cursor.execute("SELECT pg_backend_pid()")  # in a transaction that stays open
            sessions.add(cursor.fetchone())
        assert len(sessions) == SESSIONS
        for client in clients:
            client.rollback()  # or the pooler would end the session together with its client


@contextmanager
def through(pooler: PgBouncer) -> Iterator[None]:
    """This thread's connection goes through the pooler."""
    before = connection.settings_dict["PORT"]
    connection.close()
    connection.settings_dict["PORT"] = pooler.port
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict["PORT"] = before
