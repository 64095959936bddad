"""What an error of the database is about, and what to do while it is down: wait, and never guess."""

from __future__ import annotations

import enum
import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from celery.exceptions import SoftTimeLimitExceeded
from django.db import DatabaseError, InterfaceError, OperationalError, connection
from django.db.backends.postgresql.psycopg_any import is_psycopg3

from outbox.deadline import is_at_work, too_late

log = logging.getLogger(__name__)
T = TypeVar("T")

#: The wait between two tries grows to this: long enough to spare a recovering server, short enough to notice it.
MAX_WAIT_S = 5.0


class About(enum.Enum):
    """What an error of the database is about, and so what it costs the message whose run met it."""

    #: The statement or its data: the run failed by itself, and the next one would, too.
    STATEMENT = "statement"
    #: Another transaction: run again, nothing counted, for it will have ended.
    MOMENT = "moment"
    #: What the server lacks, or may not do: run again, nothing counted, for it would be the same for every message.
    SERVER = "server"
    #: A connection that the server refuses or ends, and it says why: run again on a new one, nothing counted.
    CONNECTION = "connection"
    #: Perhaps the run itself, which may have crashed its backend or left it idle: run again, the delivery counted.
    RUN = "run"
    #: Nothing that is known here: run again, the delivery counted, and at fault is whatever meets it each time.
    UNKNOWN = "unknown"


#: What an error is about, by the beginning of its SQLSTATE (PostgreSQL, Appendix A). The longest one counts; what has none
#: is UNKNOWN, and so never the message's fault without another try. There is no other such list.
_CODES = {
    # Data, constraints, syntax, names, permissions, the limits of one statement, transactions and cursors used wrongly,
    # functions that raise.
    About.STATEMENT: "02 0B 0F 0L 0P 0Z 20 21 22 23 24 25 27 2B 2D 2F 34 38 39 3B 3F 42 44 54 P0",
    # Deadlock, serialization, a lock that could not be had.
    About.MOMENT: "40 55006 55P03",
    # Disk full, out of memory, too many connections, a configured limit; errors of the system, such as I/O; read only: a
    # standby, a primary that was demoted, an operator's `default_transaction_read_only`.
    About.SERVER: "53 58 25006",
    # Shutdown, crash of another session, not yet accepting; and what a connection is refused for while passwords rotate or
    # a server is restored.
    About.CONNECTION: "08 28 3D 57P",
    # Idle or for too long in a transaction; a statement that was cancelled or took too long; whatever a pooler says, which
    # has one code for all of it, a crash included; a prepared statement that is gone, or whose plan a migration has
    # overtaken; an object in the wrong state.
    About.RUN: "25P03 25P04 57 08P01 26 0A 55",
}
_ABOUT = {code: kind for kind, codes in _CODES.items() for code in codes.split()}
#: Where another server may be the primary now: a session that stays would meet the same for as long as it lives.
_ELSEWHERE = "25006"


class DatabaseUnavailable(OperationalError):
    """The database did not come back before one of the task's time limits.

    It leaves the run at once, with nothing recorded: the worker's parent holds the message until the database is back,
    and schedules it again.
    """


def about(error: BaseException | None) -> About:
    """What this error is about; STATEMENT for what is no error of the database at all."""
    if not isinstance(error, (DatabaseError, InterfaceError)):
        return About.STATEMENT
    code = sqlstate(error)
    if code:
        return next((_ABOUT[code[:n]] for n in (5, 3, 2) if code[:n] in _ABOUT), About.UNKNOWN)
    # Without a code the server never answered: the connection broke, as in a crash of its backend, or could not be made.
    unanswered = isinstance(error, (OperationalError, InterfaceError)) or _is_nameless(error)
    return About.RUN if unanswered else About.STATEMENT


def may_pass(error: BaseException | None) -> bool:
    """Whether it is right to wait and to do it again: the error says nothing about the work itself, or nothing known."""
    return about(error) is not About.STATEMENT


def is_not_now(error: BaseException | None) -> bool:
    """Whether the error is known to say nothing about the work itself, however often it comes."""
    return about(error) not in (About.STATEMENT, About.UNKNOWN)


def may_be_its_own(error: BaseException | None) -> bool:
    """Whether a run that met this error may have caused it, and would each time, so that it counts as a delivery."""
    return about(error) in (About.RUN, About.UNKNOWN)


def broke(error: BaseException | None) -> bool:
    """Whether the connection broke without an error from the server, or could not be made: the outcome of a COMMIT is
    not known.
    """
    return about(error) is About.RUN and sqlstate(error) is None


def sqlstate(error: BaseException | None) -> str | None:
    """The server's code for this error, of any driver; None when it gave none."""
    while error is not None:
        # psycopg 3 and psycopg 2; Django's own class has it of its cause.
        code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
        if code:
            return str(code)
        error = error.__cause__
    return None


def keep_sqlstate(error: BaseException) -> None:
    """Note the server's code on the error itself: its cause has it, and does not cross to another process."""
    error.sqlstate = sqlstate(error)  # type: ignore[attr-defined]


def leave_server(error: BaseException) -> bool:
    """Close this thread's session if it may be of no use any more after this error; returns whether it did.

    Django closes one that is broken. One to a primary that was demoted works, and would be kept; so would one that is
    still at work on a statement which a soft time limit has interrupted, and takes no other one.
    """
    is_left = (
        about(error) in (About.CONNECTION, About.RUN)
        or sqlstate(error) == _ELSEWHERE
        or is_at_work(connection.connection)
    )
    if is_left and not connection.in_atomic_block:
        connection.close()
    return is_left


def soft_limit_in(error: BaseException) -> SoftTimeLimitExceeded | None:
    """The soft time limit that interrupted a statement, where this error of the database is only its consequence.

    psycopg 3 lets a signal through while it waits for an answer. Its session then is still at work, and refuses all that
    it is asked next, such as the end of the transaction: without a code, for it does not ask the server.
    """
    found: BaseException | None = error
    if is_psycopg3 and isinstance(error, (DatabaseError, InterfaceError)) and not sqlstate(error):
        while found is not None and not isinstance(found, SoftTimeLimitExceeded):
            found = found.__cause__ or found.__context__
    return found if isinstance(found, SoftTimeLimitExceeded) else None


def first_line(error: BaseException) -> str:
    """What the error says, for the log."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def described(error: BaseException) -> str:
    """The error's type, the server's code for it if there is one, and what it says."""
    code = sqlstate(error) if isinstance(error, DatabaseError) else None
    return f"{type(error).__name__}{f' (SQLSTATE {code})' if code else ''}: {error}"


def _is_nameless(error: BaseException) -> bool:
    """Whether the driver raised the root of its errors, of no class and without a code.

    So it reports a connection whose reset arrived before the statement was sent: one that was idle while its server
    crashed. Django raises the same class for reasons of its own, but then no driver's error is the cause.
    """
    return type(error) is DatabaseError and error.__cause__ is not None


def patiently(step: Callable[[], T]) -> T:
    """Run `step`, again and again with capped, jittered waits while the database is down or cannot do it now.

    The first failure is tried again at once on a new connection: most often the old one was merely stale.
    The message stays unacknowledged meanwhile, so that a worker without a database stops consuming.

    The task's clocks run on while it waits. A soft time limit that passes here says nothing about the work, and ends
    the wait with DatabaseUnavailable, as does a hard one that comes near.
    """
    wait_s = 0.0
    last: Exception | None = None
    try:
        while True:
            try:
                return step()
            except DatabaseUnavailable:
                raise
            except (DatabaseError, InterfaceError) as error:
                if soft_limit_in(error) is not None:
                    raise SoftTimeLimitExceeded from error
                if not may_pass(error) or connection.in_atomic_block:
                    raise
                last = error
            connection.close()
            if too_late(wait_s):
                raise _unavailable("hard", last) from last
            if wait_s:
                log.warning("Database unavailable (%s); next try in %.1f s", first_line(last), wait_s)
                time.sleep(wait_s * random.uniform(0.5, 1.0))
            wait_s = min(MAX_WAIT_S, wait_s * 2 or 0.2)
    except SoftTimeLimitExceeded:
        connection.close()  # It may still be at work on what was interrupted.
        raise _unavailable("soft", last) from last


def _unavailable(limit: str, last: Exception | None) -> DatabaseUnavailable:
    text = f"the database did not answer before the {limit} time limit"
    return DatabaseUnavailable(f"{text}: {first_line(last)}" if last else text)
