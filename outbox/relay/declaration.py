"""What a relay says of itself to those who commit, and how they wake it.

A commit sends a NOTIFY only while the row of some relay says that it is idle: NOTIFY makes commits take turns, and a busy
relay finds the message in any case.
"""

from __future__ import annotations

import select
import time
import uuid
from typing import Any

from django.db import OperationalError, connection
from django.db.backends.postgresql.psycopg_any import is_psycopg3

from outbox import rows
from outbox.session import is_shared

#: Behind a pooler no NOTIFY can wake it: a message waits this long at the most.
POOLED_POLL_S = 0.2
#: How often an idle relay says that it still is; the rescuer forgets one that was silent for a minute.
DECLARE_EVERY_S = 20.0


class Declaration:
    """The row of one relay."""

    def __init__(self) -> None:
        #: What the row says; None: unknown, as after an error.
        self.idle: bool | None = None
        #: Commits that woke us since the pass before the last.
        self.wakes = 0
        self._incarnation = uuid.uuid4()
        self._listens_on: Any = None
        self._valid_until = 0.0

    def sleep(self, timeout_s: float) -> bool:
        """Wait for a NOTIFY or the next poll; behind a pooler for the next poll. Returns whether heads of groups are to
        be looked for, however lately a pass has. Raises Django's OperationalError.

        A relay declares itself idle first and then makes one more pass: what was committed between its last
        pass and the declaration, and so sent no NOTIFY, is found by that pass.
        """
        self.wakes = 0
        if is_shared():
            # With the next transaction LISTEN would be another client's: the relay only writes its heartbeat, and
            # polls.
            if time.monotonic() > self._valid_until:
                self.declare(idle=False)
                self._valid_until = time.monotonic() + DECLARE_EVERY_S
            time.sleep(min(timeout_s, POOLED_POLL_S))
            return False
        if time.monotonic() > self._valid_until:
            self.declare(idle=True)
            self._valid_until = time.monotonic() + DECLARE_EVERY_S
            return True
        heard = notified(timeout_s)
        self.wakes = len(heard)
        return rows.HEADS in heard

    def busy(self) -> None:
        """Declare that commits need not wake this relay; after the first batch and not before, since that one waits."""
        if self.idle is not False:
            self.declare(idle=False)
            self._valid_until = 0.0

    def declare(self, *, idle: bool) -> None:
        """Write the row, and listen before it says idle."""
        with connection.cursor() as cursor:
            if idle and self._listens_on is not connection.connection:
                cursor.execute(f"LISTEN {rows.CHANNEL}")
                self._listens_on = connection.connection
            cursor.execute(
                "INSERT INTO outbox_relayprocess (incarnation, idle) VALUES (%s, %s)"
                " ON CONFLICT (incarnation) DO UPDATE SET idle = excluded.idle, seen_at = clock_timestamp()",
                [self._incarnation, idle],
            )
        self.idle = idle

    def forget(self) -> None:
        """What the row says is unknown: after an error, the connection that listened is closed."""
        self.idle, self._valid_until = None, 0.0

    def withdraw(self) -> None:
        """Delete the row: this relay ends."""
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM outbox_relayprocess WHERE incarnation = %s", [self._incarnation])


def notified(timeout_s: float) -> list[str]:
    """Wait for a NOTIFY on this thread's connection, which has executed LISTEN; returns the payload of each that came.

    Raises Django's OperationalError.
    """
    raw = connection.connection
    if raw is None:
        raise OperationalError("the connection that listened is closed")
    # The driver's own errors are not Django's: a server that crashed while we listen would end the relay.
    with connection.wrap_database_errors:
        if is_psycopg3:
            return [notify.payload for notify in raw.notifies(timeout=timeout_s, stop_after=1)]
        if not raw.notifies:
            select.select([raw], [], [], timeout_s)
            raw.poll()
    heard = [notify.payload for notify in raw.notifies]
    raw.notifies.clear()
    return heard
