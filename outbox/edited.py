"""An edited copy of a dead message takes its place: the operator's correction of what it was called with."""

from __future__ import annotations

import json
import uuid
from typing import Any

from outbox import dead_letters, payload
from outbox.broker.envelope import RETRIES_HEADER
from outbox.prepared import one, storable
from outbox.rows import WAKE
from outbox.sql import ACTIVE, BLOCKED, CANCELLED, DEAD, ERROR, PENDING

#: What the copy has from the original.
_SAME = "task, correlation_id, queue, ordering_key, passes_over_dead, dedup_key"


def replace(
    message_id: uuid.UUID,
    *,
    copy_id: uuid.UUID,
    args: list[Any],
    kwargs: dict[str, Any],
    retries: int | None = None,
) -> bool:
    """Cancel a dead message and write its copy with these arguments, in one statement. False if it is not dead.

    The copy is a message of its own. Of a group that waits behind the dead one it is the head at once, so that the order is
    kept; where the group has gone on it is enqueued anew. `retries`: how many it may have; None: as many as its task says.

    Raises EnqueueError for arguments that are not JSON, too large or too deeply nested, and IntegrityError while another
    message has its dedup key, or the group gets another head at this moment.
    """
    hooks = dead_letters.hooks()
    headers: dict[str, Any] = {hooks.REPLAY_HEADER: str(message_id)} if hooks else {}
    if retries is not None:
        headers[RETRIES_HEADER] = retries
    name = str(message_id)
    row = one(
        f"""
        WITH original AS (
            UPDATE outbox_outboxmessage SET status = {CANCELLED}, done_at = clock_timestamp(), errors = {ERROR}
            WHERE message_id = %(id)s AND status = {DEAD}
            RETURNING {_SAME}, headers
        ), copy AS (
            INSERT INTO outbox_outboxmessage
                (message_id, args, kwargs, headers, replays, status, deliver_at, {_SAME})
            SELECT %(copy)s, %(args)s::jsonb, %(kwargs)s::jsonb, (headers - %(name)s::text) || %(given)s::jsonb, 1,
                CASE WHEN ordering_key <> '' AND EXISTS (
                    SELECT FROM outbox_outboxmessage a
                    WHERE a.ordering_key = original.ordering_key AND a.ordering_key <> '' AND a.status IN {ACTIVE}
                ) THEN {BLOCKED} ELSE {PENDING} END,
                clock_timestamp(), {_SAME}
            FROM original RETURNING id
        ), woken AS ({WAKE})
        SELECT id, (SELECT count(*) FROM woken) FROM copy
        """,
        id=message_id,
        copy=copy_id,
        args=payload.encoded(name, "args", args, objects=True),
        kwargs=payload.encoded(name, "kwargs", kwargs, objects=True),
        name=RETRIES_HEADER,
        given=json.dumps(headers),
        error=storable(f"edited: {copy_id} runs in its place"),
    )
    return row is not None
