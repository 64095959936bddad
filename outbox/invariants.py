"""Invariants of the messages that can be checked every few seconds: {invariant: [what breaks it]}, in two statements."""

from __future__ import annotations

from django.db import connection

from outbox.sql import OPEN_BY_INDEX, SCHEDULED

#: Longer than a rescuer's pass and a relay's: what is over its time for longer is stuck.
GRACE_S = 60.0
#: Messages that are named.
LIMIT = 100


def invariants() -> dict[str, list[str]]:
    """The messages that are overdue and that no process has taken up."""
    return {
        "No message runs past its lease without being rescued": _found(
            f"{OPEN_BY_INDEX['running']} AND lease_until < {{ago}}", order="lease_until"
        ),
        "No message whose time has come stays scheduled": _found(
            f"status = {SCHEDULED} AND deliver_at < {{ago}}", order="deliver_at"
        ),
    }


def _found(condition: str, *, order: str) -> list[str]:
    # Not clock_timestamp(): compared with a volatile function, no row is found by the index.
    ago = "statement_timestamp() - %(grace)s * interval '1 second'"
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT task || ' ' || message_id FROM outbox_outboxmessage WHERE {condition.format(ago=ago)}"
            f" ORDER BY {order} LIMIT %(limit)s",
            {"grace": GRACE_S, "limit": LIMIT},
        )
        return [name for (name,) in cursor.fetchall()]
