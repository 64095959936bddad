"""What to do when the database is away: wait for it, and never guess."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from celery.exceptions import SoftTimeLimitExceeded
from django.db import DatabaseError, InterfaceError, OperationalError, connection

log = logging.getLogger(__name__)
T = TypeVar("T")

#: The wait between two tries grows to this: long enough to spare a recovering server, short enough to notice it.
MAX_WAIT_S = 5.0
#: What one try may take until it fails: to connect, or to notice that the other end is gone.
TRY_S = 25.0
#: When, by the monotonic clock, whoever waits for the database has to give up.
_give_up_at: ContextVar[float] = ContextVar("give_up_at", default=float("inf"))
#: SQLSTATEs that speak of the connection or of a concurrent transaction, not of the statement: connection
#: exceptions, rollbacks (deadlock, serialization), operator intervention (restart), the timeouts of a
#: transaction left idle and of a wait for a lock, too many connections, a prepared statement that somebody discarded.
_PASSING = ("08", "40", "57P", "25P03", "55P03", "53300", "26000")


class DatabaseAway(OperationalError):
    """The database did not come back before one of the task's time limits.

    It leaves the run at once, with nothing recorded: the worker's parent holds the message until the database is
    back, and arms it again.
    """


def is_passing(error: BaseException) -> bool:
    """Whether this database error says nothing about the work itself, so that the work may be run again."""
    if isinstance(error, InterfaceError):
        return True
    if not isinstance(error, OperationalError) and not _is_nameless(error):
        return False
    code = getattr(error.__cause__, "pgcode", None)
    # Without a code, the server never answered: the connection broke or could not be made.
    return code is None or code.startswith(_PASSING)


def is_lost_connection(error: BaseException) -> bool:
    """For a daemon's loop: whether to wait and begin anew, whatever the server said when it went away."""
    return isinstance(error, (OperationalError, InterfaceError)) or _is_nameless(error)


def _is_nameless(error: BaseException) -> bool:
    """Whether the driver raised the root of its errors, of no class and without a code.

    So it reports a connection whose reset arrived before the statement was sent: one that was idle while its server
    crashed. Django raises the same class for reasons of its own, but then no driver's error is the cause.
    """
    cause = error.__cause__
    return type(error) is DatabaseError and cause is not None and getattr(cause, "pgcode", "") is None


@contextmanager
def within_hard_limit(seconds: float) -> Iterator[None]:
    """Give up early enough before the hard limit, which asks nobody and would end in a dead letter."""
    limit = _give_up_at.set(time.monotonic() + seconds - min(seconds / 2, TRY_S))
    try:
        yield
    finally:
        _give_up_at.reset(limit)


def patiently(step: Callable[[], T]) -> T:
    """Run `step`, again and again with capped, jittered waits while the database is away.

    The first failure is tried again at once on a new connection: most often the old one was merely stale.
    The message stays unacknowledged meanwhile, so that a worker without a database stops consuming.

    The task's clocks run on while it waits. A soft time limit that rings here says nothing about the work, and ends
    the wait with DatabaseAway, as does a hard one that comes near.
    """
    wait_s = 0.0
    try:
        while True:
            try:
                return step()
            except DatabaseAway:
                raise
            except (DatabaseError, InterfaceError) as error:
                if not is_passing(error) or connection.in_atomic_block:
                    raise
                connection.close()
                if time.monotonic() + wait_s > _give_up_at.get():
                    raise DatabaseAway("the database did not answer before the hard time limit") from error
                if wait_s:
                    log.warning(
                        "Database away (%s); next try in %.1f s", str(error).strip().split("\n")[0], wait_s
                    )
                    time.sleep(wait_s * random.uniform(0.5, 1.0))
                wait_s = min(MAX_WAIT_S, wait_s * 2 or 0.2)
    except SoftTimeLimitExceeded:
        raise DatabaseAway("the database did not answer before the soft time limit") from None
