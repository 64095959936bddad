"""Counts what a process asks of the database, at the places where Django hands it to the driver."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

#: libpq's name for a connection outside of any transaction: to commit there sends nothing.
IDLE = 0


def install(note: Callable[[int, int], None]) -> Callable[[], None]:
    """Call `note(statements, commits)` for what each call of the driver adds, in every thread; returns what ends that.

    A statement is a call of the driver, savepoints included; a commit is a transaction, that of a single statement included.
    """

    def of_statement(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def execute(cursor: Any, *args: Any, **kwargs: Any) -> Any:
            # Outside of `atomic` the server commits each statement by itself.
            note(1, int(cursor.db.autocommit))
            return original(cursor, *args, **kwargs)

        return execute

    wrapper: Any = BaseDatabaseWrapper  # its own name for this is private
    commit = wrapper._commit

    def count_commit(connection: Any) -> Any:
        note(0, int(connection.connection.info.transaction_status != IDLE))
        return commit(connection)

    replaced: list[tuple[type, str, Any]] = [
        (CursorWrapper, "execute", of_statement(CursorWrapper.execute)),
        (CursorWrapper, "executemany", of_statement(CursorWrapper.executemany)),
        (wrapper, "_commit", count_commit),
    ]
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in replaced]
    for owner, name, function in replaced:
        setattr(owner, name, function)

    def undo() -> None:
        for owner, name, function in originals:
            setattr(owner, name, function)

    return undo
