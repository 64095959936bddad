"""Endings that could not be recorded yet: held unacknowledged in the worker's parent, tried again with a
growing delay.

The parent runs one event loop for all its children, so that three things must never happen here: waiting for
a database that does not answer, trying again at once, and acknowledging what is recorded nowhere. A message
that is held keeps its prefetch slot: with all slots held the worker takes nothing more until the database is
back.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from django.db import DEFAULT_DB_ALIAS, Error, connections

from dlq import journal

logger = logging.getLogger(__name__)

FIRST_DELAY_S = 0.5
#: Long enough that a dead database costs the event loop (at most CONNECT_TIMEOUT_S a try) next to nothing.
MAX_DELAY_S = 15.0
#: libpq counts whole seconds and takes 1 for 2.
CONNECT_TIMEOUT_S = 2
#: The event loop stands still while a statement runs: heartbeats and time limits wait for it.
STATEMENT_TIMEOUT_MS = 3_000
LOCK_TIMEOUT_MS = 1_500
#: The end of every wait that no other limit ends, for all statements of one try together.
DEADLINE_S = 5.0

Action = Callable[[], None]


class Shelf:
    """Runs `record` and then `done`; where `record` fails, both wait here and `done` is not called.

    One delay for all that waits, since it is one database that is down. Not thread-safe: it belongs to the
    event loop.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[Action, Action]] = deque()
        self._call_after: Callable[..., Any] | None = None
        self._delay_s = FIRST_DELAY_S
        self._database_down = False

    def __len__(self) -> int:
        return len(self._waiting)

    def use_timer(self, timer: Any) -> None:
        """The worker's timer (`consumer.timer`), which outlives broker connections."""
        self._call_after = timer.call_after

    def put(self, record: Action, done: Action) -> None:
        """Record now, or later when the database was down for the last: it is not asked once per message."""
        if not (self._waiting and self._database_down) and self._try(record, done):
            return
        self._waiting.append((record, done))
        if len(self._waiting) == 1:
            self._wait()

    def retry(self) -> None:
        """Try all that waits, up to the first that fails; the timer calls this."""
        try:
            for _ in range(len(self._waiting)):
                record, done = self._waiting.popleft()
                if not self._try(record, done):
                    # To the end: one record that the database refuses must not hold up those behind it.
                    self._waiting.append((record, done))
                    break
        finally:
            # Also when `done` raised, as an acknowledgement does on a broken connection: nothing else sets the timer.
            if self._waiting:
                self._wait()
            else:
                self._delay_s = FIRST_DELAY_S

    def _wait(self) -> None:
        delay = self._delay_s * random.uniform(0.8, 1.2)
        self._delay_s = min(self._delay_s * 2, MAX_DELAY_S)
        logger.warning(
            "%d ended messages wait unacknowledged to be recorded; next try in %.1f s", len(self), delay
        )
        if self._call_after is None:
            raise RuntimeError(
                "pending acknowledgements have no timer: worker_consumer is not dlq.worker.consumer:Consumer"
            )
        self._call_after(delay, self.retry)

    def _try(self, record: Action, done: Action) -> bool:
        try:
            with impatient_connection():
                record()
        except Exception as exc:
            # Whatever it is, the message is recorded nowhere: acknowledging it would lose it.
            self._database_down = journal.is_not_now(exc)
            if self._database_down:
                logger.error("cannot record an ending, the database is unavailable: %s", exc)
            else:
                logger.exception("cannot record an ending: %r", exc)
            return False
        self._database_down = False
        done()
        return True


@contextmanager
def _ended_after(seconds: float, session: Any) -> Iterator[None]:
    """Shut down the socket of `session` after `seconds`, so that whatever waits for its answer fails.

    All other limits are the server's or the kernel's. They say nothing about a server, or a proxy before it, that
    stalls after the handshake while its kernel acknowledges every segment, and libpq has no limit of its own. psycopg 2's
    wait callback would have one, but for the whole process: the heartbeat's thread and every child with it.
    """
    # A descriptor of its own: libpq may close the other at any time, and its number then be another file's.
    with socket.socket(fileno=os.dup(session.fileno())) as line:
        timer = threading.Timer(seconds, _shut_down, (line,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()


def _shut_down(line: socket.socket) -> None:
    with suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)


@contextmanager
def impatient_connection(alias: str = DEFAULT_DB_ALIAS) -> Iterator[None]:
    """Within it the ORM uses a new connection that gives up after seconds; it is closed at the end.

    Connecting anew each time is what makes the parent immune to a server that died or froze since the last
    time. The ordinary connection is put back, because children that fork later inherit it and must not
    inherit the limits.
    """
    ordinary = connections[alias]
    impatient = ordinary.copy(alias)
    options = impatient.settings_dict.setdefault("OPTIONS", {})
    options |= {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "tcp_user_timeout": STATEMENT_TIMEOUT_MS,
        "options": " ".join(
            part
            for part in (
                options.get("options", ""),
                f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={LOCK_TIMEOUT_MS}",
            )
            if part
        ),
    }
    # A connection out of Django's pool would be one of the ordinary ones.
    options.pop("pool", None)
    connect = impatient.get_new_connection
    with ExitStack() as deadlines:

        def connect_for_seconds(conn_params: Any) -> Any:
            session = connect(conn_params)
            deadlines.enter_context(_ended_after(DEADLINE_S, session))
            return session

        impatient.get_new_connection = connect_for_seconds  # type: ignore[method-assign]
        connections[alias] = impatient
        try:
            yield
        finally:
            connections[alias] = ordinary
            try:
                impatient.close()
            except Error:
                logger.debug("closing a broken connection failed", exc_info=True)


#: The worker's parent has one; the Consumer gives it its timer.
shelf = Shelf()
