"""The table that the benchmarks' tasks write to, the same for every contender."""

from __future__ import annotations

from django.db import connection

TABLE = """
CREATE TABLE IF NOT EXISTS bench_effect (
    id bigserial PRIMARY KEY, number bigint NOT NULL, at float8, written_at timestamptz DEFAULT clock_timestamp())
"""


def write(number: int, at: float | None = None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO bench_effect (number, at) VALUES (%s, %s)", [number, at])


def read() -> list[tuple[int, float | None]]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT number, at FROM bench_effect ORDER BY id")
        return list(cursor.fetchall())


def count(number: int | None = None) -> int:
    """How many rows there are, of this number or of all."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM bench_effect WHERE number = coalesce(%s, number)", [number])
        return int(cursor.fetchone()[0])


def clear() -> None:
    with connection.cursor() as cursor:
        cursor.execute(TABLE)
        cursor.execute("TRUNCATE bench_effect")
