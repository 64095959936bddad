"""Why a delivered copy of a message does not run, and the count of those that did not."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from outbox.prepared import one

#: Why a copy is not run: it was overtaken (done, cancelled, or of an older generation), another run holds the row, the
#: row is gone (pruned, or lost with a restore), too many runs of it never ended, or it names another task than the row.
REASONS = ("duplicate", "leased", "missing", "poison", "mismatch")


@dataclass(frozen=True)
class Refused:
    """A claim that was lost, and why: one of REASONS."""

    reason: str


def refusal(
    message_id: uuid.UUID, generation: int, *, max_deliveries: int, task: str | None = None
) -> Refused:
    """Why a claim was lost; changes nothing. `task`: what the copy names."""
    row = one(
        """
        SELECT task, generation, status, deliveries, lease_until > clock_timestamp() FROM outbox_outboxmessage
        WHERE message_id = %(id)s
        """,
        id=message_id,
    )
    if row is None:
        return Refused("missing")
    named, current, status, deliveries, leased = row
    if task is not None and named != task:
        return Refused("mismatch")
    live = current == generation and status in ("pending", "published")
    if live and not leased and deliveries >= max_deliveries:
        return Refused("poison")
    return Refused("leased" if live else "duplicate")


def count_skipped(message_id: uuid.UUID, reason: str) -> None:
    """Count a copy that does not run: for ever by its reason, and on the row where there is one that nobody holds.

    SKIP LOCKED: counting must not wait for the run that holds the row.
    """
    one(
        """
        WITH counted AS (
            UPDATE outbox_outboxmessage SET duplicates = duplicates + 1 WHERE id =
                (SELECT id FROM outbox_outboxmessage WHERE message_id = %(id)s FOR UPDATE SKIP LOCKED)
        )
        INSERT INTO outbox_skipped AS s (reason, count) VALUES (%(reason)s, 1)
        ON CONFLICT (reason) DO UPDATE SET count = s.count + 1 RETURNING count
        """,
        id=message_id,
        reason=reason,
    )
