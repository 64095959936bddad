"""The transitions of relay and rescuer: promote, mark as published, revert, requeue.

Like those of `outbox.transitions` each is one guarded statement; these work on batches. None of them waits for a lock: a
row that is locked is running, and a relay that waited for one run would stand still for every queue. Where the time
decides, `clock_timestamp()` stands in a sub-select: bare it is volatile, and no index would be used for it.

Which index is used must not be a guess: where many messages are pending, the planner thinks to find some soon by walking
another index, or the table, and then reads past everything that is done first. So each of these asks for an order that the
partial index alone has. That is why a queue is a range and not an equation, after which `ORDER BY queue` would say nothing.
"""

from __future__ import annotations

import functools
import itertools
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection

from outbox import dead_lettering
from outbox.broker.envelope import Outgoing
from outbox.prepared import Prepared
from outbox.sql import BLOCKED, PAUSED_SPAN, PENDING, PUBLISHED, SCHEDULED, TABLE_BYTES

#: For this long the row of a worker, relay or beat that is gone without a word is kept: how monitoring knows that one is
#: missing.
REMEMBERED_S = 600.0


def promote_due(limit: int) -> int:
    """Scheduled messages whose time has come become pending, earliest first."""
    return _execute(
        f"""
        UPDATE outbox_outboxmessage SET status = {PENDING} WHERE status = {SCHEDULED} AND id = ANY(ARRAY(
            SELECT id FROM outbox_outboxmessage WHERE status = {SCHEDULED} AND deliver_at <= (SELECT clock_timestamp())
            ORDER BY deliver_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
        """,
        limit=limit,
    )


@dataclass(frozen=True)
class Taken:
    """What one statement found: the messages that it marked as published, by queue, and what else there is to do.

    `waiting`: queues for which there was no room and that have pending messages. `due`: scheduled messages whose time has
    come. `blocked`: messages of groups. `resumed`: messages that were set aside, of tasks that are paused no more.
    `set_aside`: how many this statement set aside, since their task is paused.
    """

    batches: dict[str, list[Outgoing]]
    waiting: list[str]
    due: bool
    blocked: bool
    resumed: bool
    set_aside: int


#: SQL for the ids of the messages of a task that were set aside, the oldest first: `until` is its row's. Found by the time, and
#: not by the task, since no statistics can make the planner take another index.
_SET_ASIDE = f"""
    SELECT m.id FROM outbox_outboxmessage m
    WHERE m.status = {SCHEDULED} AND m.deliver_at >= until AND m.deliver_at < until + {PAUSED_SPAN} AND m.task = paused.task
    ORDER BY m.deliver_at
"""


@functools.cache
def _take(queues: int) -> Prepared:
    names = [(f"queue_{number}", f"room_{number}") for number in range(queues)]
    # Not an array: how many queues are in one the planner does not know, and would plan this each time.
    values = ", ".join(f"(%({queue})s, %({room})s)" for queue, room in names)
    given = f"VALUES {values}" if names else "SELECT '', 0 WHERE false"
    # Without those that an operator has paused, see `outbox.pausing`.
    rooms = f"""(SELECT name, room FROM ({given}) AS given (name, room) WHERE NOT EXISTS (
        SELECT FROM outbox_unusablequeue WHERE queue = name AND paused_by <> '')) AS rooms"""
    pending = f"""
        FROM outbox_outboxmessage WHERE status = {PENDING} AND queue >= name AND queue <= name ORDER BY queue, id
    """
    paused = "(SELECT task FROM outbox_pausedtask WHERE paused_by <> '')"
    return Prepared(
        f"""
        WITH chosen AS (
            SELECT batch.id, batch.task
            FROM {rooms} CROSS JOIN LATERAL (SELECT id, task {pending} LIMIT room FOR UPDATE SKIP LOCKED) batch
        ), set_aside AS (
            UPDATE outbox_outboxmessage m
            SET status = {SCHEDULED}, deliver_at = (
                SELECT until + m.id * interval '1 microsecond' FROM outbox_pausedtask p WHERE p.task = m.task)
            WHERE status = {PENDING} AND id = ANY(ARRAY(SELECT id FROM chosen WHERE task IN {paused}))
            RETURNING id
        ), marked AS (
            UPDATE outbox_outboxmessage
            SET status = {PUBLISHED}, published_at = clock_timestamp(), publish_count = publish_count + 1,
                started_at = NULL
            WHERE (SELECT set_config('synchronous_commit', 'off', true)) = 'off' AND status = {PENDING} AND id = ANY(ARRAY(
                SELECT id FROM chosen WHERE task NOT IN {paused}))
            RETURNING id, message_id::text, generation, publish_count,
                      extract(epoch FROM published_at)::float8, task, args::text, kwargs::text, headers::text,
                      correlation_id, queue
        )
        SELECT ARRAY(SELECT name FROM {rooms} WHERE room = 0 AND (SELECT id {pending} LIMIT 1) IS NOT NULL),
               coalesce((SELECT min(deliver_at) FROM outbox_outboxmessage WHERE status = {SCHEDULED})
                        <= clock_timestamp(), false),
               (SELECT min(ordering_key) FROM outbox_outboxmessage WHERE status = {BLOCKED}) IS NOT NULL,
               EXISTS (SELECT FROM outbox_pausedtask paused WHERE paused_by = '' AND ({_SET_ASIDE} LIMIT 1) IS NOT NULL),
               (SELECT count(*) FROM set_aside), marked.*, {TABLE_BYTES}
        FROM (SELECT) one_row LEFT JOIN marked ON true
        """,
        **dict(itertools.chain.from_iterable(((queue, "text"), (room, "int")) for queue, room in names)),
    )


def take(rooms: Mapping[str, int]) -> Taken:
    """Claim pending messages for one publisher, as many of each queue as it has room for, oldest first, past what others hold.

    Those of a paused task are set aside instead: scheduled until it is resumed, they do not stand in the way of the others.

    One statement for all queues, since it is most of what a relay costs the database: whatever the table's size, it reads
    what it marks, and one row of each index. The mark does not wait for the disk. A server that crashes may forget it, and
    then the message is published again; but never once a worker has committed anything about it, for what commits later is
    flushed with all before it.
    """
    parameters: dict[str, str | int] = {}
    for number, (queue, room) in enumerate(rooms.items()):
        parameters |= {f"queue_{number}": queue, f"room_{number}": room}
    rows = _take(len(rooms)).all(**parameters)
    batches: dict[str, list[Outgoing]] = {}
    for message in sorted(
        (Outgoing(*row[5:]) for row in rows if row[5] is not None), key=lambda each: each.id
    ):
        batches.setdefault(message.queue, []).append(message)
    return Taken(batches, *rows[0][:5])


def mark(queue: str, limit: int) -> list[Outgoing]:
    """`take` for one queue."""
    return take({queue: limit}).batches.get(queue, [])


def release(limit: int) -> int:
    """Messages that were set aside are pending again where their task is resumed, up to `limit` of each task, the oldest first.

    They count as due since now: the time of the pause is no backlog. The sub-select has locked what it chose, and with another
    condition on the state the planner might read all that is scheduled.
    """
    return _execute(
        f"""
        UPDATE outbox_outboxmessage SET status = {PENDING}, deliver_at = clock_timestamp()
        WHERE id = ANY(ARRAY(
            SELECT batch.id FROM outbox_pausedtask paused
            CROSS JOIN LATERAL ({_SET_ASIDE} LIMIT %(limit)s FOR UPDATE SKIP LOCKED) batch WHERE paused_by = ''))
        """,
        limit=limit,
    )


def revert(batch: Sequence[Outgoing]) -> int:
    """The batch was not published, or it is not known: pending again, except what a worker has begun or ended."""
    return _execute(
        f"""
        UPDATE outbox_outboxmessage m SET status = {PENDING}, publish_count = m.publish_count - 1
        FROM unnest(%(ids)s::bigint[], %(generations)s::int[], %(counts)s::int[]) AS sent(id, generation, count)
        WHERE m.id = sent.id AND m.status = {PUBLISHED} AND m.generation = sent.generation
          AND m.publish_count = sent.count AND m.started_at IS NULL
          AND m.id = ANY(ARRAY(SELECT id FROM outbox_outboxmessage WHERE id = ANY(%(ids)s::bigint[])
                               FOR UPDATE SKIP LOCKED))
        """,
        ids=[message.id for message in batch],
        generations=[message.generation for message in batch],
        counts=[message.publish_count for message in batch],
    )


def refuse(message: Outgoing, reason: str, *, max_refusals: int) -> None:
    """A healthy broker refused this message: pending again, or, when it has refused often enough, a dead letter.

    Its publishes of this generation are the count, so that an outage of the broker spends none.
    """
    if message.publish_count < max_refusals:
        _execute(
            f"""
            UPDATE outbox_outboxmessage SET status = {PENDING}
            WHERE id = %(id)s AND status = {PUBLISHED} AND generation = %(generation)s
              AND publish_count = %(count)s AND started_at IS NULL
            """,
            id=message.id,
            generation=message.generation,
            count=message.publish_count,
        )
        return
    dead_lettering.dead_letter_unpublishable(
        uuid.UUID(message.message_id),
        message.generation,
        dead_lettering.Failure(f"Unpublishable: {reason}"),
        publish_count=message.publish_count,
    )


@dataclass(frozen=True)
class AtRisk:
    """What may have been lost. `running`: some run has begun and not ended. `queues` have a message that was published more
    than the margin ago and that no run has begun.
    """

    running: bool
    queues: list[str]


_AT_RISK = Prepared(
    f"""
    SELECT (SELECT true FROM outbox_outboxmessage WHERE status = {PUBLISHED} AND started_at IS NOT NULL
            ORDER BY lease_until LIMIT 1) IS NOT NULL,
           ARRAY(SELECT DISTINCT queue FROM outbox_outboxmessage
                 WHERE status = {PUBLISHED} AND started_at IS NULL
                   AND published_at < (SELECT clock_timestamp()) - %(margin)s * interval '1 second'),
           {TABLE_BYTES}
    """,
    margin="float8",
)


def at_risk(margin_s: float) -> AtRisk:
    """Whether there is anything to rescue; all that the rescuer costs in an idle system."""
    row = _AT_RISK.one(margin=margin_s)
    assert row is not None
    return AtRisk(*row)


def requeue_unstarted(queue: str, *, seen_empty: bool, margin_s: float) -> int:
    """Requeue what this queue must have lost: published, unstarted, and overtaken or the queue is empty.

    Overtaken: some worker received a message that was published to the queue later by more than the margin.
    At most once per margin, since each publish sets the time anew; a wrong guess costs one skipped copy.
    """
    return _execute(
        f"""
        UPDATE outbox_outboxmessage SET status = {PENDING}
        WHERE status = {PUBLISHED} AND started_at IS NULL AND id = ANY(ARRAY(
            SELECT id FROM outbox_outboxmessage
            WHERE status = {PUBLISHED} AND started_at IS NULL AND queue = %(queue)s
              AND published_at < (SELECT clock_timestamp()) - %(margin)s * interval '1 second'
              AND (%(empty)s OR extract(epoch FROM published_at) + %(margin)s < (
                  SELECT max((received ->> %(queue)s)::float8) FROM outbox_worker))
            FOR UPDATE SKIP LOCKED))
        """,
        queue=queue,
        empty=seen_empty,
        margin=margin_s,
    )


def requeue_abandoned(*, worker_timeout_s: float, judge_workers: bool) -> int:
    """Requeue what a run began and will not end: its lease ran out, or its worker's heartbeat is missing.

    `judge_workers`: False while no worker could have written heartbeats, such as right after an outage of the database.
    """
    return _execute(
        f"""
        UPDATE outbox_outboxmessage
        SET status = {PENDING}, started_at = NULL, lease_token = NULL, lease_until = NULL
        WHERE id = ANY(ARRAY(
            SELECT id FROM outbox_outboxmessage m
            WHERE status = {PUBLISHED} AND started_at IS NOT NULL AND (
                lease_until < clock_timestamp()
                OR (%(judge)s AND worker <> ''
                    AND started_at < clock_timestamp() - %(timeout)s * interval '1 second'
                    AND NOT EXISTS (SELECT FROM outbox_worker w WHERE w.incarnation::text = split_part(m.worker, ':', 1)
                                    AND w.beat_at > clock_timestamp() - %(timeout)s * interval '1 second')))
            FOR UPDATE OF m SKIP LOCKED))
        """,
        judge=judge_workers,
        timeout=worker_timeout_s,
    )


def forget_processes(*, worker_timeout_s: float) -> None:
    """Remove the rows of workers and relays that are long gone."""
    _execute(
        "DELETE FROM outbox_worker WHERE beat_at < clock_timestamp() - %(old)s * interval '1 second'",
        old=max(worker_timeout_s * 10, REMEMBERED_S),
    )
    _execute("DELETE FROM outbox_relayprocess WHERE seen_at < clock_timestamp() - interval '60 seconds'")


def _execute(sql: str, **parameters: Any) -> int:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.rowcount
