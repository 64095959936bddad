"""A second session with the database, and what a restart of the server does to the first."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection


@contextmanager
def another_session(**parameters: Any) -> Iterator[Any]:
    """A connection of its own to the test's database, of the bare driver. `parameters`: of libpq, instead of the test's."""
    session = connection.Database.connect(**connection.get_connection_params() | parameters)
    try:
        yield session
    finally:
        session.close()


def lose_connection() -> None:
    """End this thread's database session at the server; the client learns it with its next statement."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    with another_session() as administrator:
        administrator.cursor().execute("SELECT pg_terminate_backend(%s, 10000)", [pid])
