"""Pause a queue or a task: the relay publishes nothing of it until an operator resumes it; its messages wait as rows.

They spend nothing and keep their place. What the broker holds already runs. The alerts `queue_unusable` and `task_paused` name
what is paused for as long as it is, so that it is not forgotten.

The messages of a paused queue stay pending. Those of a paused task would stand in the way of the others of their queue: the
relay sets each aside when its turn comes, as scheduled for a time that does not come, and makes it pending again after the
resume (docs/decisions/0025-a-paused-task-is-set-aside.md). So it is with every message of that name: a new one, a retry, the
child of another task, a replay, and what the broker lost.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.db import connection, transaction

from outbox import audit, conf
from outbox.enqueue import registered
from outbox.prepared import one, storable
from outbox.rows import WAKE
from outbox.sql import PAUSED_SPAN, PAUSED_UNTIL
from outbox.status import Verb


@dataclass
class Unusable:
    """A queue to which nothing is published: why, for how many seconds, and whether an operator has paused it."""

    reason: str
    for_s: float
    is_paused: bool


@dataclass
class PausedTask:
    """A task that an operator has paused: who and why, for how many seconds, and how many of its messages are set aside."""

    reason: str
    for_s: float
    set_aside: int = 0


def pause(queue: str, *, actor: str, reason: str = "") -> bool:
    """Publish nothing to this queue from the relay's next pass on. False when it is paused already.

    Raises ValueError for a queue that `OUTBOX_QUEUES` does not name, and without an actor.
    """
    if queue not in conf.queues():
        raise ValueError(f"there is no queue {queue!r}; the queues are {', '.join(conf.queues())}")
    return _pause("outbox_unusablequeue", "queue", queue, actor=actor, reason=reason)


def pause_task(task: str, *, actor: str, reason: str = "") -> bool:
    """Publish no message of this task from the relay's next pass on. False when it is paused already.

    Raises EnqueueError for a task that this deployment does not have, and ValueError without an actor.
    """
    registered(task)
    until = f"coalesce((SELECT max(until) FROM outbox_pausedtask) + {PAUSED_SPAN}, {PAUSED_UNTIL})"
    with transaction.atomic(), connection.cursor() as cursor:
        # Two who pause two tasks at once would take the same span. The relay only reads this table, and does not wait.
        cursor.execute("LOCK TABLE outbox_pausedtask IN SHARE ROW EXCLUSIVE MODE")
        return _pause("outbox_pausedtask", "task", task, actor=actor, reason=reason, until=until)


def _pause(table: str, column: str, name: str, *, actor: str, reason: str, **more: str) -> bool:
    """`more`: further columns of a new row, each with its SQL."""
    if not actor:
        raise ValueError("name the operator who pauses it")
    shown = audit.as_shown(reason)
    said = f"paused by {actor}" + (f": {shown}" if shown else "")
    with transaction.atomic(savepoint=False):
        row = one(
            f"""
            INSERT INTO {table} ({", ".join((column, "reason", "paused_by", *more))})
            VALUES ({", ".join(("%(name)s", "%(reason)s", "%(actor)s", *more.values()))})
            ON CONFLICT ({column}) DO UPDATE
            SET reason = excluded.reason, paused_by = excluded.paused_by, since = clock_timestamp()
            WHERE {table}.paused_by = '' RETURNING {column}
            """,
            name=name, reason=storable(said), actor=storable(actor),
        )  # fmt: skip
        if row is not None:
            audit.record(Verb.PAUSE, f"{column} {name}", actor=actor, reason=reason)
    return row is not None


def resume(queue: str, *, actor: str = "", reason: str = "") -> bool:
    """Publish to it again, at once. False when it is not paused."""
    sql = "DELETE FROM outbox_unusablequeue WHERE queue = %(name)s"
    return _resume(sql, queue, f"queue {queue}", actor, reason)


def resume_task(task: str, *, actor: str = "", reason: str = "") -> bool:
    """Publish its messages again, those that were set aside in the order of their enqueueing. False when it is not paused."""
    sql = "UPDATE outbox_pausedtask SET paused_by = '' WHERE task = %(name)s"
    return _resume(sql, task, f"task {task}", actor, reason)


def _resume(sql: str, name: str, target: str, actor: str, reason: str) -> bool:
    with transaction.atomic():
        row = one(
            f"""
            WITH resumed AS ({sql} AND paused_by <> '' RETURNING 1), woken AS ({WAKE})
            SELECT (SELECT count(*) FROM woken) FROM resumed
            """,
            name=name,
        )
        if row is not None:
            audit.record(Verb.RESUME, target, actor=actor, reason=reason)
    return row is not None


def held_back() -> tuple[dict[str, Unusable], dict[str, PausedTask]]:
    """The queues to which nothing is published, and why, and the paused tasks, whose messages are not counted here."""
    queues: dict[str, Unusable] = {}
    tasks: dict[str, PausedTask] = {}
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT queue, task, reason, extract(epoch FROM clock_timestamp() - since)::float8, paused_by <> ''
            FROM (SELECT queue, NULL AS task, reason, since, paused_by FROM outbox_unusablequeue
                  UNION ALL SELECT NULL, task, reason, since, paused_by FROM outbox_pausedtask WHERE paused_by <> '') held
            """
        )
        for queue, task, reason, for_s, is_paused in cursor.fetchall():
            if task is None:
                queues[queue] = Unusable(reason, for_s, is_paused)
            else:
                tasks[task] = PausedTask(reason, for_s)
    return queues, tasks


def paused() -> list[tuple[str, str]]:
    """(queue, who and why) of all that are paused."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT queue, reason FROM outbox_unusablequeue WHERE paused_by <> '' ORDER BY queue")
        found: list[tuple[str, str]] = cursor.fetchall()
    return found
