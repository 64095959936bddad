"""One SQL statement and what it answers, and texts as PostgreSQL can store them."""

from __future__ import annotations

import json
from typing import Any

from django.db import connection

MAX_ERROR_CHARS = 2_000


def one(sql: str, **parameters: Any) -> tuple[Any, ...] | None:
    """Execute it and return its first row, None without one."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        row: tuple[Any, ...] | None = cursor.fetchone()
    return row


def decoded(value: Any) -> Any:
    # Django's psycopg2 backend leaves jsonb from raw SQL as text.
    return json.loads(value) if isinstance(value, str) else value


def storable(error: str) -> str:
    # PostgreSQL stores neither NUL nor half of a surrogate pair.
    storable = error.replace("\x00", "\\0").encode("utf-8", "backslashreplace").decode()
    return storable[:MAX_ERROR_CHARS]
