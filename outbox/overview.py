"""What an operator is shown of the processes and the retries, as rows of text: for a control room that knows no outbox."""

from __future__ import annotations

from collections import Counter

from outbox import conf, stats
from outbox.prepared import every
from outbox.sql import OPEN_BY_INDEX
from outbox.status import Role

#: Title of a column -> what is in it; `is_well`, no column, says whether the row is as it should be.
Row = dict[str, str | int]
#: Running messages that are listed, and scheduled ones that are looked at, the next first.
RUNNING, NEXT = 100, 10_000


def workers() -> list[Row]:
    """Each worker by its queues, with what it runs, and its last heartbeat."""
    running: dict[str, list[str]] = {}
    for worker, task, for_s in every(
        f"""
        SELECT split_part(worker, ':', 1), task, extract(epoch FROM clock_timestamp() - started_at)::float8
        FROM outbox_outboxmessage WHERE {OPEN_BY_INDEX["running"]} ORDER BY lease_until LIMIT %(limit)s
        """,
        limit=RUNNING,
    ):
        running.setdefault(worker, []).append(f"{task} for {for_s:.1f} s")
    found = every(
        """
        SELECT incarnation::text, hostname, pid, active, concurrency, memory_bytes,
               array(SELECT jsonb_object_keys(received) ORDER BY 1),
               extract(epoch FROM clock_timestamp() - beat_at)::float8
        FROM outbox_worker WHERE role = %(worker)s ORDER BY received::text, hostname, pid
        """,
        worker=Role.WORKER.value,
    )
    return [
        {
            "queues": ", ".join(queues) or "none yet",
            "worker": f"{hostname} (pid {pid})",
            "busy": f"{active} of {concurrency}",
            "runs": "; ".join(running.get(incarnation, ())) or "nothing",
            "memory": f"{memory_bytes / 1e6:.0f} MB",
            "last heartbeat": f"{age_s:.1f} s ago",
            "is_well": age_s <= conf.worker_timeout_s(),
        }
        for incarnation, hostname, pid, active, concurrency, memory_bytes, queues, age_s in found
    ]


def daemons() -> list[Row]:
    """Each relay and beat, with its last sign of life."""
    return [
        {
            "process": process.role,
            "runs at": f"{process.hostname} (pid {process.pid})",
            "last sign of life": f"{process.silent_for_s:.0f} s ago",
            "is_well": process.alive,
        }
        for process in stats.processes()
        if process.role != Role.WORKER
    ]


def retries() -> list[Row]:
    """Of the messages that are scheduled next those that were run or deferred before, by task."""
    tasks: Counter[str] = Counter()
    in_s: dict[str, float] = {}
    for task, count, next_s in every(
        f"""
        SELECT task, count(*), extract(epoch FROM min(deliver_at) - clock_timestamp())::float8
        FROM (SELECT task, deliver_at, generation FROM outbox_outboxmessage WHERE {OPEN_BY_INDEX["scheduled"]}
              ORDER BY deliver_at LIMIT %(limit)s) m
        WHERE generation > 1 GROUP BY task
        """,
        limit=NEXT,
    ):
        tasks[task], in_s[task] = count, max(0.0, next_s)
    return [
        {"task": task, "retries": count, "next": f"in {in_s[task]:.0f} s"}
        for task, count in tasks.most_common()
    ]
