"""Counts what this process asks of the database, at the places where Django hands it to the driver."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

#: libpq's name for a connection outside of any transaction: to commit there sends nothing.
IDLE = 0


@dataclass
class Cost:
    """`statements`: calls of the driver, savepoints included. `commits`: transactions, the one of a single statement included."""

    statements: int = 0
    commits: int = 0


@contextmanager
def counting() -> Iterator[Cost]:
    """Count in the block, in every thread."""
    cost = Cost()

    def of_statement(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def execute(cursor: Any, *args: Any, **kwargs: Any) -> Any:
            cost.statements += 1
            # Outside of `atomic` the server commits each statement by itself.
            cost.commits += cursor.db.autocommit
            return original(cursor, *args, **kwargs)

        return execute

    commit = BaseDatabaseWrapper._commit

    def count_commit(connection: Any) -> Any:
        cost.commits += connection.connection.info.transaction_status != IDLE
        return commit(connection)

    with (
        patch.object(CursorWrapper, "execute", of_statement(CursorWrapper.execute)),
        patch.object(CursorWrapper, "executemany", of_statement(CursorWrapper.executemany)),
        patch.object(BaseDatabaseWrapper, "_commit", count_commit),
    ):
        yield cost
