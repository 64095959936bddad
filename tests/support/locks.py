"""Waiting for a race to be set up, instead of hoping for it with a sleep."""

import time

from django.db import connection

# Not pg_stat_activity: inside a transaction it keeps showing what it showed first.
_BLOCKED = "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted"


def wait_until_blocked(sessions: int, timeout_s: float = 10.0) -> None:
    """Return as soon as that many sessions wait for a lock; AssertionError if they do not."""
    deadline = time.monotonic() + timeout_s
    with connection.cursor() as cursor:
        while True:
            cursor.execute(_BLOCKED)
            (blocked,) = cursor.fetchone()
            if blocked >= sessions:
                return
            assert time.monotonic() < deadline, f"{blocked} of {sessions} sessions wait for a lock"
            time.sleep(0.01)
