"""A table of effects that test tasks write, made by the test run, not by a migration of the product."""

from __future__ import annotations

from django.db import connection

TABLE = (
    "CREATE TABLE IF NOT EXISTS outbox_test_effect (id bigserial PRIMARY KEY, name text NOT NULL, pid int)"
)


def create_table() -> None:
    with connection.cursor() as cursor:
        cursor.execute(TABLE)


def add(name: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO outbox_test_effect (name, pid) VALUES (%s, pg_backend_pid())", [name])


def names(prefix: str = "") -> list[str]:
    """The effects in the order in which they were written."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name FROM outbox_test_effect WHERE starts_with(name, %s) ORDER BY id", [prefix]
        )
        return [name for (name,) in cursor.fetchall()]


def count(name: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM outbox_test_effect WHERE name = %s", [name])
        return int(cursor.fetchone()[0])


def clear() -> None:
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE outbox_test_effect")
