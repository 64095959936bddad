"""The table in which the tasks of `lab.faultpoints.witness` record their runs."""

from __future__ import annotations

from uuid import UUID

from django.db import connection

TABLE = "crashpoints_witness"


def create_table() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE TABLE IF NOT EXISTS {TABLE} (id bigserial, name text, copy int, row_generation int)"
        )


def record(name: str, *, generation: int, message_id: UUID) -> None:
    """Write down a run of the copy of this generation, with the generation that the row has now."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {TABLE} (name, copy, row_generation) SELECT %s, %s, generation"
            " FROM outbox_outboxmessage WHERE message_id = %s",
            [name, generation, message_id],
        )


def rows(name: str) -> list[tuple[int, int]]:
    """(generation of the copy, generation of the row) of each run."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT copy, row_generation FROM {TABLE} WHERE name = %s ORDER BY id", [name])
        return [tuple(row) for row in cursor.fetchall()]
