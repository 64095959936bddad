"""Run scheduled messages now: after an outage an operator does not wait for the end of their back-off."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import connection

from outbox import audit, conf
from outbox.enqueue import check_task
from outbox.prepared import one
from outbox.rows import WAKE
from outbox.sql import PAUSED_UNTIL, SCHEDULED
from outbox.status import Verb

#: Messages of one call at the most, the first due first, and of one statement.
MOST, BATCH = 100_000, 5_000


def run_now(
    *,
    task: str = "",
    queue: str = "",
    ordering_key: str = "",
    delayed: bool = False,
    most: int = MOST,
    actor: str = "",
    reason: str = "",
) -> int:
    """Make the scheduled messages of a task, a queue and a group due; '' is any of them. Returns how many; again for the rest.

    Those alone that have run, and were deferred or failed: what was enqueued with a delay keeps it. `delayed`: these, too.
    What is set aside, since its task is paused, waits for the resume.
    What each run counts stays: it is as if its time had come. Each message is made due once, whatever comes of it meanwhile.

    `actor` and `reason` go on record. Raises ValueError where neither task, queue nor group is named, or where this deployment
    does not have them.
    """
    if task:
        check_task(task)
    if queue and queue not in conf.queues():
        raise ValueError(f"there is no queue {queue!r}; the queues are {', '.join(conf.queues())}")
    named = {"task": task, "queue": queue, "group": ordering_key}
    target = ", ".join(f"{kind} {name}" for kind, name in named.items() if name)
    chosen = choose(task=task, queue=queue, ordering_key=ordering_key, delayed=delayed, most=most)
    return run_chosen(chosen, target=target, actor=actor, reason=reason)


def run_chosen(chosen: Sequence[tuple[int, int]], *, target: str, actor: str = "", reason: str = "") -> int:
    """Make these messages (id, generation) due, and write down who did. Returns how many. `target`: how they were chosen."""
    # First, so that what was begun is on record.
    audit.record(Verb.RUN_NOW, target, actor=actor, reason=reason, messages=len(chosen))
    return sum(make_due(chosen[start : start + BATCH]) for start in range(0, len(chosen), BATCH))


def choose(
    *, task: str = "", queue: str = "", ordering_key: str = "", delayed: bool = False, most: int = MOST
) -> list[tuple[int, int]]:
    """The messages (id, generation) that `run_now` would make due."""
    if not (task or queue or ordering_key):
        raise ValueError("name a task, a queue or a group")
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT id, generation FROM outbox_outboxmessage
            WHERE status = {SCHEDULED} AND deliver_at > (SELECT clock_timestamp()) AND deliver_at < {PAUSED_UNTIL}
              AND (%(delayed)s OR errors <> '[]'::jsonb) AND %(task)s IN ('', task) AND %(queue)s IN ('', queue)
              AND %(key)s IN ('', ordering_key)
            ORDER BY deliver_at LIMIT %(most)s
            """,
            {"task": task, "queue": queue, "key": ordering_key, "delayed": delayed, "most": most},
        )
        return list(cursor.fetchall())


def make_due(chosen: Sequence[tuple[int, int]]) -> int:
    """The time of these messages (id, generation) has come, where they are still scheduled; returns of how many."""
    row = one(
        f"""
        WITH due AS (
            UPDATE outbox_outboxmessage m SET deliver_at = clock_timestamp()
            FROM unnest(%(ids)s::bigint[], %(generations)s::int[]) AS chosen (id, generation)
            WHERE m.id = chosen.id AND m.generation = chosen.generation AND m.status = {SCHEDULED}
              AND m.deliver_at > clock_timestamp() AND m.deliver_at < {PAUSED_UNTIL}
              AND m.id = ANY(ARRAY(SELECT id FROM outbox_outboxmessage WHERE id = ANY(%(ids)s::bigint[])
                                   FOR UPDATE SKIP LOCKED))
            RETURNING m.id
        ), woken AS ({WAKE})
        SELECT count(*), (SELECT count(*) FROM woken) FROM due
        """,
        ids=[message for message, _ in chosen],
        generations=[generation for _, generation in chosen],
    )
    assert row is not None
    return int(row[0])
