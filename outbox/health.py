"""For a readiness probe: whether a relay runs, without which no accepted work starts."""

from __future__ import annotations

from django.db import connection

from outbox import heartbeat
from outbox.status import Role


class NoRelay(Exception):
    """No relay has given a sign of life lately."""


def check_relay() -> None:
    """Some relay has given a sign of life within `heartbeat.SILENT_AFTER_S` seconds; raises NoRelay."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT extract(epoch FROM clock_timestamp() - max(beat_at))::float8 FROM outbox_worker WHERE role = %s",
            [Role.RELAY.value],
        )
        (silent_for_s,) = cursor.fetchone()
    if silent_for_s is None:
        raise NoRelay("no relay is running")
    if silent_for_s > heartbeat.SILENT_AFTER_S:
        raise NoRelay(f"no relay has given a sign of life for {silent_for_s:.0f} s")
