"""Questions about the outbox, for the API, the monitoring and the operator. They change nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from django.db import connection

from outbox import conf, failing, heartbeat, pausing, totals
from outbox.claims import REASONS
from outbox.models import OutboxMessage, Schedule, Skipped
from outbox.prepared import every
from outbox.relay.queries import REMEMBERED_S
from outbox.sql import DEAD, DONE, INDEX_ORDER, OPEN, OPEN_BY_INDEX
from outbox.status import Role, Status
from outbox.trouble import TROUBLE


def messages_of(correlation_id: str, limit: int | None = None) -> list[OutboxMessage]:
    """The messages of this correlation id, oldest first, up to `limit` (None: all), with their `trouble`: see `TROUBLE`."""
    found = OutboxMessage.objects.filter(correlation_id=correlation_id).annotate(trouble=TROUBLE)
    return list(found.order_by("id")[:limit])


def without_a_message(correlation_ids: Collection[str]) -> list[str]:
    """Of these correlation ids those that have no message which will still run, or is a dead letter."""
    found = every(
        f"""
        SELECT wanted FROM unnest(%(ids)s::text[]) wanted WHERE NOT EXISTS (
            SELECT FROM outbox_outboxmessage WHERE correlation_id = wanted AND correlation_id <> ''
            AND (status IN {OPEN} OR status = {DEAD}))
        """,
        ids=list(correlation_ids),
    )
    return [correlation_id for (correlation_id,) in found]


def backlog(limit: int) -> int:
    """How many messages are open, counted up to `limit` only, so that asking stays cheap."""
    counts = " + ".join(
        "(SELECT count(*) FROM"
        f" (SELECT FROM outbox_outboxmessage WHERE {condition} ORDER BY {INDEX_ORDER[state]} LIMIT %(n)s) m)"
        for state, condition in OPEN_BY_INDEX.items()
    )
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT least({counts}, %(n)s)", {"n": limit})
        return int(cursor.fetchone()[0])


@dataclass
class QueueFigures:
    """One queue, now: its open messages by state, and what is wrong with it."""

    pending: int = 0
    scheduled: int = 0
    #: Set aside, since their task is paused.
    paused: int = 0
    blocked: int = 0
    #: Handed to the broker, and not begun.
    published: int = 0
    running: int = 0
    #: Since it was enqueued, or since it was due: of the messages that wait for a worker, and not for an operator's resume.
    oldest_pending_age_s: float = 0.0
    #: Since it was enqueued: of the messages that have been retried, deferred or replayed; likewise.
    oldest_repeated_age_s: float = 0.0
    #: Why the broker takes nothing for this queue; '' if it does.
    unusable: str = ""
    unusable_for_s: float = 0.0


@dataclass
class WorkerFigures:
    """The live workers, together. `lately`: the most that lived at one moment of the last `REMEMBERED_S` seconds."""

    count: int
    lately: int
    concurrency: int
    active: int
    memory_bytes: int


@dataclass
class DaemonFigures:
    """The relays, or the beats. `expected`: whether one must be there for what there is to do; `count`: those that gave a
    sign of life lately; `lately`: the most that lived at one moment of the last `REMEMBERED_S` seconds.
    """

    expected: bool
    count: int
    lately: int


@dataclass
class Process:
    """One worker, relay or beat: since when it runs, and for how long it has been silent."""

    role: str
    hostname: str
    pid: int
    started_at: datetime
    silent_for_s: float
    alive: bool


@dataclass
class Figures:
    """What the monitoring and the operator are shown. A dict is by queue, also where nothing is in it."""

    queues: dict[str, QueueFigures]
    done_last_minute: dict[str, int]
    failed_last_minute: dict[str, int]
    #: From enqueueing to the end, of what ended in the last minute.
    avg_latency_ms: dict[str, float]
    #: Ever.
    totals: dict[str, totals.Total]
    #: Ever, by the reason of a refused claim.
    skipped: dict[str, int]
    #: Retries, deferrals and replays of the messages that are kept.
    retries: int
    workers: WorkerFigures
    relays: DaemonFigures
    beats: DaemonFigures
    #: Only those of which an open message has failed.
    tasks: dict[str, failing.TaskFigures]
    paused_tasks: dict[str, pausing.PausedTask]


def stats() -> Mapping[str, Any]:
    """`figures` as a mapping, for a monitoring that does not know these classes: the keys are the names of their fields."""
    return asdict(figures())


def figures() -> Figures:
    """Per queue what is open and what ended in the last minute; the totals since the start; the workers."""
    queues = {queue: QueueFigures() for queue in conf.queues()}
    tasks: dict[str, failing.TaskFigures] = {}
    waits_for_relay = False
    unusable, paused_tasks = pausing.held_back()
    paused_queues = {queue for queue, why in unusable.items() if why.is_paused}
    for queue, why in unusable.items():
        found = queues.setdefault(queue, QueueFigures())
        found.unusable, found.unusable_for_s = why.reason, why.for_s
    for queue, state, task, count, age_s, repeated_age_s, retrying, failed, set_aside in _open():
        if task is not None:
            if retrying:
                tasks[task] = failing.TaskFigures(retrying, failed)
            if task in paused_tasks:
                paused_tasks[task].set_aside = set_aside
            continue
        found = queues.setdefault(queue, QueueFigures())
        setattr(found, state, count)
        if state == "paused" or (state == Status.PENDING and queue in paused_queues):
            # It waits for an operator: no relay and no worker is to blame.
            continue
        waits_for_relay |= state == Status.PENDING or (state == Status.SCHEDULED and age_s > 0)
        found.oldest_repeated_age_s = max(found.oldest_repeated_age_s, repeated_age_s)
        if state in (Status.PENDING, Status.PUBLISHED):
            found.oldest_pending_age_s = max(found.oldest_pending_age_s, age_s)
    done, failed = dict.fromkeys(queues, 0), dict.fromkeys(queues, 0)
    latency_ms = dict.fromkeys(queues, 0.0)
    for queue, *last_minute in _last_minute():
        done[queue], failed[queue], latency_ms[queue] = last_minute
    ((retries,),) = every(
        "SELECT coalesce(sum(generation - 1), 0)::bigint FROM outbox_outboxmessage WHERE generation > 1"
    )
    return Figures(
        queues=queues,
        done_last_minute=done,
        failed_last_minute=failed,
        avg_latency_ms=latency_ms,
        totals={queue: totals.Total() for queue in queues} | totals.totals(),
        skipped=dict.fromkeys(REASONS, 0) | dict(Skipped.objects.values_list("reason", "count")),
        retries=retries,
        workers=_workers(),
        # What is due waits for a relay, and a schedule for a beat; one that died without a word is expected to come back.
        relays=_daemons(Role.RELAY, expected=waits_for_relay),
        beats=_daemons(Role.BEAT, expected=Schedule.objects.exists()),
        tasks=failing.complete(tasks),
        paused_tasks=paused_tasks,
    )


def processes() -> list[Process]:
    """Every worker, relay and beat that lives or was lost lately, by role."""
    rows = every(
        f"""
        SELECT role, hostname, pid, started_at, silent_for_s, silent_for_s < {_TIMEOUT} AS alive
        FROM (SELECT *, extract(epoch FROM clock_timestamp() - beat_at)::float8 AS silent_for_s FROM outbox_worker) w
        ORDER BY role, alive DESC, hostname, pid
        """,
        worker=conf.worker_timeout_s(),
        daemon=heartbeat.SILENT_AFTER_S,
    )
    return [Process(*row) for row in rows]


def _open() -> list[Any]:
    rows = " UNION ALL ".join(
        f"SELECT queue, '{state}' AS state, task, created_at, deliver_at, generation, attempts,"
        " CASE WHEN attempts > 0 THEN (errors -> -1 ->> 'at')::timestamptz END AS failed_at"
        f" FROM outbox_outboxmessage WHERE {condition}"
        for state, condition in OPEN_BY_INDEX.items()
    )
    return every(
        f"""
        SELECT queue, state, task, count(*),
               coalesce(extract(epoch FROM clock_timestamp() - min(greatest(created_at, deliver_at))), 0)::float8,
               coalesce(extract(epoch FROM clock_timestamp()
                        - min(created_at) FILTER (WHERE generation > 1)), 0)::float8,
               count(*) FILTER (WHERE attempts > 0),
               count(*) FILTER (WHERE failed_at > clock_timestamp() - %(lately)s * interval '1 second'),
               count(*) FILTER (WHERE state = 'paused')
        FROM ({rows}) open GROUP BY GROUPING SETS ((queue, state), (task))
        """,
        lately=failing.LATELY_S,
    )


def _last_minute() -> list[Any]:
    return every(
        f"""
        SELECT queue, count(*) FILTER (WHERE status = {DONE}), count(*) FILTER (WHERE status = {DEAD}),
               coalesce(avg(extract(epoch FROM done_at - created_at) * 1000)
                        FILTER (WHERE status = {DONE}), 0)::float8
        FROM outbox_outboxmessage
        -- Not clock_timestamp(): compared with a volatile function, no row is found by the index.
        WHERE done_at > statement_timestamp() - interval '60 seconds' GROUP BY 1
        """
    )


#: Seconds of silence after which a process counts as dead.
_TIMEOUT = f"CASE role WHEN '{Role.WORKER}' THEN %(worker)s ELSE %(daemon)s END"


def _workers() -> WorkerFigures:
    ((count, *together),) = every(
        f"""
        SELECT count(*), coalesce(sum(concurrency), 0)::bigint, coalesce(sum(active), 0)::bigint,
               coalesce(sum(memory_bytes), 0)::bigint
        FROM outbox_worker
        WHERE role = '{Role.WORKER}' AND beat_at > clock_timestamp() - %(timeout)s * interval '1 second'
        """,
        timeout=conf.worker_timeout_s(),
    )
    return WorkerFigures(count, _lately(Role.WORKER), *together)


def _daemons(role: Role, *, expected: bool) -> DaemonFigures:
    ((count, rows),) = every(
        """
        SELECT count(*) FILTER (WHERE beat_at > clock_timestamp() - %(timeout)s * interval '1 second'), count(*)
        FROM outbox_worker WHERE role = %(role)s
        """,
        timeout=heartbeat.SILENT_AFTER_S,
        role=role.value,
    )
    return DaemonFigures(expected or rows > 0, count, _lately(role))


def _lately(role: Role) -> int:
    """The most of them that lived at one moment of the last `REMEMBERED_S` seconds."""
    # A moment worth looking at is the first one, or one at which a process began. One that ended in order has no
    # row, so that a deployment does not look like a loss.
    ((lately,),) = every(
        """
        WITH lately AS (SELECT greatest(started_at, clock_timestamp() - %(s)s * interval '1 second') AS began,
                               beat_at
                        FROM outbox_worker
                        WHERE role = %(role)s AND beat_at > clock_timestamp() - %(s)s * interval '1 second')
        SELECT coalesce(max(n), 0) FROM (
            SELECT (SELECT count(*) FROM lately w WHERE w.began <= m.began AND w.beat_at >= m.began) AS n
            FROM lately m) moments
        """,
        s=REMEMBERED_S,
        role=role.value,
    )
    return int(lately)
