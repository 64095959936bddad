"""Pause a queue or a task: the relay publishes nothing of it until an operator resumes it; its messages wait as rows.

They spend nothing and keep their place. What the broker holds already runs. The alerts `queue_unusable` and `task_paused` name
what is paused for as long as it is, so that it is not forgotten.

The messages of a paused queue stay pending. Those of a paused task would stand in the way of the others of their queue: the
relay sets each aside when its turn comes, as scheduled for a time that does not come, and makes it pending again after the
resume (docs/decisions/0025-a-paused-task-is-set-aside.md). So it is with every message of that name: a new one, a retry, the
child of another task, a replay, and what the broker lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import connection, transaction

from outbox import audit, conf
from outbox.enqueue import check_task
from outbox.models import OutboxMessage
from outbox.prepared import every, one, storable
from outbox.rows import WAKE
from outbox.sql import OPEN_BY_INDEX, PAUSED_SPAN, PAUSED_UNTIL
from outbox.status import ACTIVE, Status, Verb


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


@dataclass(frozen=True)
class Pause:
    """What a message waits for: the resume of this queue or task (`target`: "queue low"). `reason`: who paused it, and why.

    `is_of_head`: it is not the message's own, but that of the head of its ordered group.
    """

    target: str
    reason: str
    since: datetime
    is_of_head: bool = False


def pause(queue: str, *, actor: str, reason: str = "") -> bool:
    """Publish nothing to this queue from the relay's next pass on. False when it is paused already.

    Raises ValueError for a queue that `OUTBOX_QUEUES` does not name, and without an actor.
    """
    if queue not in conf.queues():
        raise ValueError(f"there is no queue {queue!r}; the queues are {', '.join(conf.queues())}")
    return _pause("outbox_unusablequeue", "queue", queue, actor=actor, reason=reason)


def pause_task(task: str, *, actor: str, reason: str = "") -> bool:
    """Publish no message of this task from the relay's next pass on. False when it is paused already.

    Raises EnqueueError for a task that this deployment does not have or that is Celery's own, and ValueError without an actor.
    """
    check_task(task)
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
    for queue, task, reason, _, for_s, is_paused in _held():
        if task is None:
            queues[queue] = Unusable(reason, for_s, is_paused)
        else:
            tasks[task] = PausedTask(reason, for_s)
    return queues, tasks


def pauses_of(messages: Sequence[OutboxMessage]) -> dict[int, Pause]:
    """By their ids, those of these messages that wait for a resume, and for which. What the broker holds does not.

    In one statement, and another one where some of them are blocked.
    """
    held = {
        f"queue {queue}" if task is None else f"task {task}": (audit.as_shown(reason), since)
        for queue, task, reason, since, _, is_paused in _held()
        if is_paused
    }
    waiting = [each for each in messages if each.status in (Status.PENDING, Status.SCHEDULED, Status.BLOCKED)]
    keys = {each.ordering_key for each in waiting if each.status == Status.BLOCKED}
    heads = OutboxMessage.objects.filter(ordering_key__in=keys, status__in=ACTIVE).exclude(ordering_key="")
    # What is published already waits for no resume, and what is behind it only for its own.
    head_of = (
        {head.ordering_key: head for head in heads.exclude(status=Status.PUBLISHED)} if keys and held else {}
    )
    found = {}
    for message in waiting:
        head = head_of.get(message.ordering_key) if message.status == Status.BLOCKED else None
        for each in (head, message):
            targets = (f"task {each.task}", f"queue {each.queue}") if each else ()
            target = next((one for one in targets if one in held), None)
            if target:
                found[message.pk] = Pause(target, *held[target], is_of_head=each is head)
                break
    return found


def behind() -> list[tuple[Any, ...]]:
    """Of each paused queue and task ("queue low") how many messages are blocked behind one that waits for its resume."""
    return every(
        f"""
        SELECT target, count(*) FROM (
            SELECT ordering_key, 'task ' || task AS target FROM outbox_outboxmessage
            WHERE {OPEN_BY_INDEX["paused"]} AND ordering_key <> ''
            UNION ALL SELECT ordering_key, 'queue ' || queue FROM outbox_outboxmessage
            WHERE {OPEN_BY_INDEX["pending"]} AND ordering_key <> ''
              AND queue IN (SELECT queue FROM outbox_unusablequeue WHERE paused_by <> '')
        ) head JOIN outbox_outboxmessage USING (ordering_key)
        WHERE {OPEN_BY_INDEX["blocked"]} GROUP BY target ORDER BY target
        """
    )


def _held() -> list[Any]:
    return every(
        """
        SELECT queue, task, reason, since, extract(epoch FROM clock_timestamp() - since)::float8, paused_by <> ''
        FROM (SELECT queue, NULL AS task, reason, since, paused_by FROM outbox_unusablequeue
              UNION ALL SELECT NULL, task, reason, since, paused_by FROM outbox_pausedtask WHERE paused_by <> '') held
        """
    )


def standing(kind: str, name: str) -> str:
    """`paused already, since 2026-11-29 16:00:00 UTC: paused by alice: moved`; '' for a queue or task that is not paused."""
    table = {"queue": "outbox_unusablequeue", "task": "outbox_pausedtask"}[kind]
    row = one(f"SELECT since, reason FROM {table} WHERE {kind} = %(name)s AND paused_by <> ''", name=name)
    return (
        ""
        if row is None
        else f"paused already, since {row[0].astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC: {row[1]}"
    )


def paused() -> list[tuple[str, str]]:
    """(queue, who and why) of all that are paused."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT queue, reason FROM outbox_unusablequeue WHERE paused_by <> '' ORDER BY queue")
        found: list[tuple[str, str]] = cursor.fetchall()
    return found
