"""What this thread's connection to the database can rely on: a session of its own, and the timeouts that it asks for.

A pooler that shares the server's sessions between transactions (PgBouncer's `pool_mode = transaction`) takes both away,
the second without a word: it drops the options of its clients, or refuses them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from django.db import OperationalError, connection

#: Without them a wait has no end: for a lock, and for the process that holds it and is frozen inside a transaction.
TIMEOUTS = ("lock_timeout", "idle_in_transaction_session_timeout")

_shared: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


@dataclass(frozen=True)
class Session:
    """`shared`: it may be another one for the next transaction. `missing`: why its waits have no end, '' if they have."""

    shared: bool
    missing: str


def is_shared() -> bool:
    """Whether each transaction of this connection may run in another session: nothing that it prepares, or listens to,
    lasts.

    The server is asked once for each connection. Raises OperationalError where a timeout is missing that the connection
    asks for: what has no end must not begin. (`outbox.checks` says the same at the start of a process.)
    """
    connection.ensure_connection()
    shared = _shared.get(connection.connection)
    if shared is None:
        found = look()
        if found.missing:
            raise OperationalError(found.missing)
        shared = _shared[connection.connection] = found.shared
    return shared


def look() -> Session:
    """Ask the server about the session that this connection has now.

    A pooler answers the handshake of its clients itself, with a process id that is no process of the server. One that
    gives each client a session of its own looks the same, and is treated the same.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT pg_backend_pid(), {', '.join(f'current_setting({name!r})' for name in TIMEOUTS)}"
        )
        pid, *values = cursor.fetchone()
    asked = _asked()
    missing = {
        name: asked[name]
        for name, value in zip(TIMEOUTS, values, strict=True)
        if value == "0" and name in asked
    }
    return Session(pid != connection.connection.info.backend_pid, _advice(missing))


def _asked() -> dict[str, str]:
    options = str(connection.settings_dict.get("OPTIONS", {}).get("options", ""))
    return dict(re.findall(r"-c\s*([a-z_]+)=(\S+)", options))  # of two values the last one counts


def _advice(missing: dict[str, str]) -> str:
    if off := [name for name, asked in missing.items() if re.fullmatch(r"0+\D*", asked)]:
        return f"{' and '.join(off)} must not be 0 in the options of DATABASES: a wait would have no end"
    if not missing:
        return ""
    remedy = "; ".join(f"ALTER ROLE CURRENT_USER SET {name} = '{asked}'" for name, asked in missing.items())
    return (
        f"{' and '.join(missing)} must not be 0 in sessions of the database: a pooler drops what the options of DATABASES"
        f" ask for. Execute {remedy}; and let the pooler reconnect (docs/operations.md: Poolers)"
    )
