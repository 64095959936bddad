"""One SQL statement and what it answers, and texts as PostgreSQL can store them."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary

from django.db import connection
from django.db.backends.postgresql.psycopg_any import is_psycopg3

from outbox.session import is_shared

MAX_ERROR_CHARS = 2_000
#: Seconds for which a session keeps a plan at the most, see `Prepared`.
PLAN_LASTS_S = 60.0
#: A table below this size may be read as a whole: that takes no longer than to plan anew.
SMALL_BYTES = 128 * 1024


def one(sql: str, **parameters: Any) -> tuple[Any, ...] | None:
    """Execute it and return its first row, None without one."""
    rows = every(sql, **parameters)
    return rows[0] if rows else None


def every(sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """Execute it and return its rows."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())


class Prepared:
    """A statement that a session parses and plans now and then, and not each time it executes it.

    To find one row by its key takes PostgreSQL less time than to plan that. But a plan that is kept is one for the
    table as it was: made while it was empty, it reads every row while the table fills, for as long as nothing analyzes
    it (docs/decisions/0009-a-plan-lasts-until-the-table-has-doubled.md). So the last column of every answer is the size of the
    table, `outbox.sql.TABLE_BYTES`, which no caller sees: a plan is given up when the table is twice as large as it was at
    its smallest under this plan, and after PLAN_LASTS_S.

    `types`: each parameter of the text, `%(name)s`, and its type. Behind a pooler nothing is prepared: the next
    transaction may run in another session, or in one where another process has prepared its own under this name. Nor is
    it where psycopg 3 binds parameters on the server (`server_side_binding` in OPTIONS of DATABASES), where EXECUTE
    takes none.
    """

    _numbers = itertools.count()

    def __init__(self, sql: str, **types: str) -> None:
        self._sql = sql
        for number, name in enumerate(types, start=1):
            sql = sql.replace(f"%({name})s", f"${number}")
        self._plan = f"{_list(types.values())} AS {sql}"
        self._values = _list(f"%({name})s" for name in types)
        #: Session -> the plan's name, until when it lasts, and how large the table may become.
        self._plans: WeakKeyDictionary[Any, tuple[str, float, float]] = WeakKeyDictionary()

    def one(self, **parameters: Any) -> tuple[Any, ...] | None:
        """Execute it and return its first row, None without one."""
        rows = self.all(**parameters)
        return rows[0] if rows else None

    def all(self, **parameters: Any) -> list[tuple[Any, ...]]:
        """Execute it and return its rows."""
        with connection.cursor() as cursor:
            session, now = connection.connection, time.monotonic()
            # Until this has ended well the plan counts as gone, and a name is never used twice: whatever fails or
            # interrupts this, the next execution neither meets a name that exists nor misses one that does not.
            name, until, most_bytes = self._plans.pop(session, ("", now, 0.0))
            if now < until:
                cursor.execute(f"EXECUTE {name} {self._values}", parameters)
            elif is_shared() or connection.settings_dict["OPTIONS"].get("server_side_binding"):
                cursor.execute(self._sql, parameters)
                return [row[:-1] for row in cursor.fetchall()]
            else:
                # One round trip for all of it.
                given_up = f"DEALLOCATE {name}; " if name else ""
                name, until, most_bytes = f"outbox_{next(self._numbers)}", now + PLAN_LASTS_S, math.inf
                cursor.execute(
                    f"{given_up}PREPARE {name} {self._plan}; EXECUTE {name} {self._values}", parameters
                )
                # psycopg 3 begins with the answer of the first of the statements, psycopg 2 has that of the last one.
                while is_psycopg3 and cursor.nextset():
                    pass
            rows = cursor.fetchall()
            if rows:
                table_bytes = rows[0][-1]
                if table_bytes > most_bytes:
                    until = now
                # The server plans anew by itself when the table is vacuumed or analyzed, however small it is then.
                most_bytes = min(most_bytes, max(2 * table_bytes, SMALL_BYTES))
            self._plans[session] = name, until, most_bytes
        return [row[:-1] for row in rows]


def _list(items: Iterable[str]) -> str:
    """In brackets, or nothing: PREPARE and EXECUTE take no empty list."""
    text = ", ".join(items)
    return f"({text})" if text else ""


def decoded(value: Any) -> Any:
    # Django leaves jsonb from raw SQL as text.
    return json.loads(value) if isinstance(value, str) else value


def storable(error: str) -> str:
    # PostgreSQL stores neither NUL nor half of a surrogate pair.
    storable = error.replace("\x00", "\\0").encode("utf-8", "backslashreplace").decode()
    return storable[:MAX_ERROR_CHARS]
