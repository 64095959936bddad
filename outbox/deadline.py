"""The end of a run's waits for the database, before the hard time limit ends its process.

A hard time limit gives no warning: the worker's parent kills the process, and the message is dead. That is right for work
that takes too long, and wrong for work that waits. No signal reaches a process inside of libpq, so that with
psycopg 2 a soft limit goes unnoticed there; and PostgreSQL's own timeouts do not count in a COMMIT, which waits for a
synchronous standby for as long as it is gone.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections

log = logging.getLogger(__name__)

#: What one try may take until it fails: to connect, or to notice that the other end is gone.
TRY_S = 25.0
#: A statement that is still under way this long before the hard limit is cut: its run then has time to report it and to
#: end.
CUT_BEFORE_S = 5.0
#: How often to look for a statement that began after that.
LOOK_EVERY_S = 0.5
#: The transaction status of libpq, in both psycopg 2 and 3, while the server has not answered.
_ACTIVE = 1
#: When, by the monotonic clock, a wait for the database has to end.
_give_up_at: ContextVar[float] = ContextVar("give_up_at", default=float("inf"))


def too_late(wait_s: float) -> bool:
    """Whether a try that begins in `wait_s` seconds could outlast the hard limit."""
    return time.monotonic() + wait_s > _give_up_at.get()


def is_at_work(session: Any) -> bool:
    """Whether the server has not answered the last statement of this connection yet; None is no connection."""
    return session is not None and session.info.transaction_status == _ACTIVE


@contextmanager
def within_hard_limit(seconds: float) -> Iterator[None]:
    """Give up early enough before the hard limit, which gives no warning and would end in a dead letter.

    What waits in `outbox.database.patiently` gives up by itself. What the server does not answer loses its connection
    CUT_BEFORE_S before the limit, so that it ends as an outage of the database: the run is lost, and the message not.
    """
    now = time.monotonic()
    limit = _give_up_at.set(now + seconds - min(seconds / 2, TRY_S))
    try:
        with cut_at(now + seconds - min(seconds / 4, CUT_BEFORE_S)):
            yield
    finally:
        _give_up_at.reset(limit)


@contextmanager
def cut_at(moment: float) -> Iterator[None]:
    """From this moment of the monotonic clock on, a statement of this thread that is under way loses its connection.

    The outcome of a COMMIT that is cut is not known, as with every lost connection.
    """
    run = _Run(moment)
    _watchdog.add(run)
    try:
        yield
    finally:
        _watchdog.remove(run)


class _Run:
    def __init__(self, moment: float) -> None:
        self.moment = moment
        # This thread's connection: the watchdog has another.
        self.wrapper: Any = connections[DEFAULT_DB_ALIAS]

    def cut(self) -> None:
        session = self.wrapper.connection
        with suppress(Exception):  # It may be closed at any moment, by a thread that goes on.
            if not is_at_work(session):
                return
            number = session.fileno()
            with socket.socket(fileno=os.dup(number)) as line:
                # A descriptor may have been closed meanwhile, and its number be another file's. libpq takes no second
                # one for a session: while it is still this one, what was duplicated is its socket.
                if session.fileno() == number:
                    line.shutdown(socket.SHUT_RDWR)
                    log.warning("The database has not answered until the time limit; its connection is cut")


class _Watchdog:
    """One thread a process, which sleeps until the first moment that somebody named.

    To add a run costs two entries in a dictionary. The thread is woken only for a moment before the one it sleeps to,
    and in a worker that is the first: each later run has a later one.
    """

    def __init__(self) -> None:
        self._runs: dict[int, _Run] = {}
        self._wakes_at = float("inf")
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def add(self, run: _Run) -> None:
        self._runs[id(run)] = run
        if self._thread is None:
            self._start()
        if run.moment < self._wakes_at:
            self._woken.set()

    def remove(self, run: _Run) -> None:
        del self._runs[id(run)]

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="outbox-deadline", daemon=True)
                self._thread.start()

    def _watch(self) -> None:
        while True:
            self._woken.clear()
            # Until it is known: adding a run meanwhile wakes this thread.
            self._wakes_at = float("inf")
            now, runs = time.monotonic(), self._runs.copy().values()
            for run in runs:
                if run.moment <= now:
                    run.cut()
            self._wakes_at = min(
                (run.moment if run.moment > now else now + LOOK_EVERY_S for run in runs), default=float("inf")
            )
            wait_s = self._wakes_at - now
            self._woken.wait(min(wait_s, threading.TIMEOUT_MAX))


_watchdog = _Watchdog()


def _begin_anew() -> None:
    global _watchdog
    _watchdog = _Watchdog()


# A thread does not cross a fork, and a lock that another thread held would be held for ever.
os.register_at_fork(after_in_child=_begin_anew)
