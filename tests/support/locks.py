"""Waiting for a race to be set up, instead of hoping for it with a sleep."""

import time

from django.db import connection

_BLOCKED = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()
"""


def wait_until_blocked(sessions: int, timeout_s: float = 10.0) -> None:
    """Return as soon as that many other sessions of this database wait for a lock; AssertionError if they do not."""
    deadline = time.monotonic() + timeout_s
    with connection.cursor() as cursor:
        while True:
            cursor.execute(_BLOCKED)
            (blocked,) = cursor.fetchone()
            if blocked >= sessions:
                return
            assert time.monotonic() < deadline, f"{blocked} of {sessions} sessions wait for a lock"
            time.sleep(0.01)
