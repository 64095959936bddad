"""Every I/O boundary that this process crosses, numbered in the order of crossing; at a chosen one something strikes.

The hooks sit under the product, at the last call of each client library before the wire: SQL statements, COMMIT and
ROLLBACK (which Django's `execute_wrapper` does not see), HTTP, SMTP and Redis (publishing, acknowledging, locks).
So new code is covered as soon as it does I/O, and production code knows nothing of it.
"""

from __future__ import annotations

import functools
import http.client
import os
import re
import signal
import smtplib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis
from django.db import OperationalError, connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from redis.connection import AbstractConnection

SIDES = ("before", "after")
#: kill: SIGKILL. cut: the connection breaks and the client library raises. refused: the database refuses the statement.
#: duplicate: another one does the same thing at this very moment. frozen: the process stands still past all leases, everything
#: is redelivered to others, and then it wakes up.
STRIKES = ("kill", "cut", "refused", "duplicate", "frozen")
KINDS = ("sql", "commit", "rollback", "http", "smtp", "redis")
#: What differs between two runs of one scenario: ids of any kind, and numbers.
_RUN_SPECIFIC = re.compile(r"\b(?:pi|ch|re|evt|req)_\w+|[0-9a-f]{8}-[0-9a-f-]{27}|\b[0-9a-f]{32}\b|\d+")


@dataclass(frozen=True)
class Crossing:
    """One I/O: `kind` is one of KINDS; `label` says which, without ids."""

    number: int
    kind: str
    label: str

    def __str__(self) -> str:
        return f"{self.number:3d} {self.kind:8} {self.label}"


@dataclass(frozen=True)
class Point:
    """Where something strikes: crossing number, from 0, and the side of it."""

    number: int
    side: str

    def __str__(self) -> str:
        return f"{self.number}:{self.side}"

    @classmethod
    def parse(cls, text: str) -> Point:
        """`12:before`, or `12` for it. Raises ValueError."""
        number, _, side = text.partition(":")
        if (side or "before") not in SIDES:
            raise ValueError(f"a point is NUMBER:before or NUMBER:after, not {text!r}")
        return cls(int(number), side or "before")


class Watch:
    """Counts the crossings of the thread that made it and, at `point`, calls `strike` once."""

    def __init__(self, point: Point | None = None, strike: Callable[[Crossing], None] | None = None) -> None:
        self.crossings: list[Crossing] = []
        self._point = point
        self._strike = strike
        self._thread = threading.get_ident()
        self._inside = False

    def cross(self, kind: str, label: str, call: Callable[[], Any]) -> Any:
        if self._inside or threading.get_ident() != self._thread:
            return call()
        crossing = Crossing(len(self.crossings), kind, _RUN_SPECIFIC.sub("#", " ".join(label.split()))[:110])
        self.crossings.append(crossing)
        self._at(crossing, "before")
        self._inside = True
        try:
            return call()
        finally:
            # Also of a call that failed, by a reply that was lost for one: what the process then knows is a state, too.
            self._inside = False
            self._at(crossing, "after")

    def _at(self, crossing: Crossing, side: str) -> None:
        if self._strike is not None and self._point == Point(crossing.number, side):
            strike, self._strike = self._strike, None
            self._inside = True  # What the strike itself does is not part of the scenario.
            try:
                strike(crossing)
            finally:
                self._inside = False


_watch: Watch | None = None


@contextmanager
def watching(watch: Watch) -> Iterator[Watch]:
    """Report every crossing in the block to `watch`."""
    global _watch
    before, _watch = _watch, watch
    try:
        yield watch
    finally:
        _watch = before


def kill(crossing: Crossing) -> None:
    """As the OOM killer, a pulled plug or `kill -9` would: nothing of this process runs after it."""
    os.kill(os.getpid(), signal.SIGKILL)


def cut(crossing: Crossing) -> None:
    """The connection breaks here, and the client library says so."""
    if crossing.kind in ("sql", "commit", "rollback"):
        if connection.connection is not None:
            connection.connection.close()
        raise OperationalError("cut here: server closed the connection unexpectedly")
    if crossing.kind == "redis":
        raise redis.ConnectionError("cut here: connection closed by server")
    if crossing.kind == "smtp":
        raise smtplib.SMTPServerDisconnected("cut here: connection unexpectedly closed")
    raise ConnectionResetError("cut here: connection reset by peer")


def refused(crossing: Crossing) -> None:
    """The server cannot carry out the statement now, and aborts the transaction: its disk is full, or it is read-only."""
    code = ("disk_full", "read_only_sql_transaction")[crossing.number % 2]
    connection.ensure_connection()
    with connection.wrap_database_errors, connection.connection.cursor() as cursor:
        cursor.execute(f"DO $$ BEGIN RAISE EXCEPTION 'refused here' USING ERRCODE = '{code}'; END $$")


def _wrapped(owner: Any, name: str, describe: Callable[..., tuple[str, str]]) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _watch is None:
            return original(self, *args, **kwargs)
        kind, label = describe(self, *args, **kwargs)
        return _watch.cross(kind, label, lambda: original(self, *args, **kwargs))

    setattr(owner, name, wrapper)


@functools.cache
def install() -> None:
    """Put the hooks under the client libraries of this process; once."""
    for name in ("execute", "executemany"):
        _wrapped(CursorWrapper, name, lambda cursor, sql, *_: ("sql", str(sql)))
    _wrapped(BaseDatabaseWrapper, "_commit", lambda _: ("commit", ""))
    _wrapped(BaseDatabaseWrapper, "_rollback", lambda _: ("rollback", ""))
    # Under requests/urllib3, stripe and the webhooks' own transport alike. `getresponse` waits for what the server
    # did: before it the request is out and unanswered, after it the answer is known.
    _remember_target()
    _wrapped(http.client.HTTPConnection, "endheaders", lambda c, *_, **__: ("http", f"send {c.crash_target}"))
    _wrapped(http.client.HTTPConnection, "getresponse", lambda c: ("http", f"answer {c.crash_target}"))
    _wrapped(smtplib.SMTP, "putcmd", lambda _, command, *__: ("smtp", command))
    _wrapped(smtplib.SMTP, "getreply", lambda _: ("smtp", "reply"))
    _wrapped(
        AbstractConnection, "send_packed_command", lambda _, packed, *__, **___: ("redis", _command(packed))
    )


def _remember_target() -> None:
    original = http.client.HTTPConnection.putrequest

    @functools.wraps(original)
    def putrequest(self: Any, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        self.crash_target = f"{method} {url}"
        original(self, method, url, *args, **kwargs)

    http.client.HTTPConnection.putrequest = putrequest  # type: ignore[method-assign]


def _command(packed: Any) -> str:
    """The names of the Redis commands in a packet: `*2\\r\\n$4\\r\\nRPOP\\r\\n...`."""
    raw = packed if isinstance(packed, bytes) else b"".join(bytes(part) for part in packed)
    names = re.findall(rb"\*\d+\r\n\$\d+\r\n([A-Za-z]+)", raw)
    return " ".join(name.decode().upper() for name in names[:6])
