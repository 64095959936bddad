"""New messages: their rows, the look-ups of ids and dedup keys, and the NOTIFY to a relay that is idle."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection

from outbox.errors import EnqueueError
from outbox.prepared import one
from outbox.sql import BLOCKED, OPEN, PENDING, SCHEDULED

CHANNEL = "outbox"

#: Payload of a NOTIFY for messages of ordered groups, of which some may become heads.
HEADS = "heads"


def _wake(payload: str) -> str:
    # Wakes a relay that has declared itself idle. NOTIFY serialises the commits of all who use it, so that a
    # busy system must not: with every relay at work the subquery finds no row and nothing is sent.
    return f"SELECT pg_notify('{CHANNEL}', '{payload}') FROM outbox_relayprocess WHERE idle LIMIT 1"


WAKE, WAKE_FOR_HEADS = _wake(""), _wake(HEADS)


@dataclass(frozen=True)
class NewMessage:
    """A message that is not in the table yet. `args`, `kwargs` and `headers` are JSON; `delay_s` is in seconds.

    `replays`: 1 for what an operator sends again, else 0. `id_given`: the caller chose the id, so that it may be taken.
    """

    message_id: uuid.UUID
    task: str
    args: str
    kwargs: str
    headers: str
    correlation_id: str
    queue: str
    ordering_key: str
    passes_over_dead: bool
    dedup_key: str
    replays: int
    delay_s: float
    id_given: bool


_COLUMNS = (
    "message_id", "task", "args", "kwargs", "headers", "correlation_id", "queue", "ordering_key", "passes_over_dead",
    "dedup_key", "replays",
)  # fmt: skip
_VALUES = (
    f"({', '.join(['%s'] * len(_COLUMNS))},"
    f" CASE WHEN %s <> '' THEN {BLOCKED} WHEN %s > 0 THEN {SCHEDULED} ELSE {PENDING} END,"
    " clock_timestamp() + %s * interval '1 second')"
)


def insert(rows: Sequence[NewMessage]) -> None:
    """Write messages, in one statement. Those whose dedup key is taken by an open message are left out.

    A message with an ordering key starts as blocked: the relay promotes the head of each group, one at a
    time, so that producers of one group need not wait for each other.
    """
    if not rows:
        return
    parameters: list[Any] = []
    for row in rows:
        parameters += [getattr(row, name) for name in _COLUMNS]
        parameters += [row.ordering_key, row.delay_s, row.delay_s]
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH added AS (INSERT INTO outbox_outboxmessage ({', '.join(_COLUMNS)}, status, deliver_at)"
            f" VALUES {', '.join([_VALUES] * len(rows))}"
            f" ON CONFLICT (dedup_key) WHERE status IN {OPEN}"
            f" AND NOT dedup_key = '' DO NOTHING) {WAKE_FOR_HEADS if any(row.ordering_key for row in rows) else WAKE}",
            parameters,
        )


def begin_with(message_id: uuid.UUID, *, attempts: int) -> None:
    """The message has had runs before it became a row; a statement of its own, for all others have had none."""
    one(
        "UPDATE outbox_outboxmessage SET attempts = %(attempts)s WHERE message_id = %(id)s RETURNING id",
        id=message_id, attempts=attempts,
    )  # fmt: skip


def unwritten(
    rows: Sequence[NewMessage], children: dict[uuid.UUID, NewMessage], *, now: bool
) -> list[NewMessage]:
    """Of the rows of a running message those to write: not what waits already, by the same id and dedup key.

    `children` wait for the settlement, which is too late for what is to be written `now`. Raises EnqueueError for
    an id that is taken: found out by the settlement, it would kill a run that has done its work.
    """
    new: dict[uuid.UUID, NewMessage] = {}
    for row in rows:
        message_id = row.message_id
        waiting = new.get(message_id) or children.get(message_id)
        key = waiting.dedup_key if waiting is not None else None
        if waiting is None and row.id_given:
            key = held_key(message_id)
        if key is None:
            new[message_id] = row
        elif not key or key != row.dedup_key or (now and message_id in children):
            raise EnqueueError(f"{row.task}: there is a message {message_id} already")
    return list(new.values())


def held_key(message_id: uuid.UUID) -> str | None:
    """The dedup key that this message holds, '' if it holds none or has ended; None when there is no such message."""
    found = one(
        f"""
        SELECT CASE WHEN status IN {OPEN} THEN dedup_key ELSE '' END
        FROM outbox_outboxmessage WHERE message_id = %(id)s
        """,
        id=message_id,
    )
    return None if found is None else str(found[0])


def has_open(row: NewMessage) -> bool:
    """Whether the message that has this row's id is the same call, from the same producer, and will still run."""
    same = one(
        f"""
        SELECT 1 FROM outbox_outboxmessage
        WHERE message_id = %(message_id)s AND task = %(task)s AND args = %(args)s::jsonb
          AND kwargs = %(kwargs)s::jsonb AND headers = %(headers)s::jsonb
          AND status IN {OPEN}
        """,
        **vars(row),
    )
    return same is not None
