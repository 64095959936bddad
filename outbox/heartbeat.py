"""What a worker tells the journal about itself: that it lives, and how far it has read each queue.

One thread in the worker's parent writes one row a second, and less often while the worker has nothing to do. The rescuer
reads from it which started messages have lost their worker, and which published ones were overtaken in their queue and so
must be lost.

A relay and a beat write such a row every ten seconds, from their own loop: one that is frozen writes none.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from celery import current_app, signals
from django.db import Error, connection

from outbox import conf, transitions
from outbox.database import first_line
from outbox.status import Role

log = logging.getLogger(__name__)

BEAT_EVERY_S = 1.0
#: A worker that runs nothing, and has received nothing since its last heartbeat, writes so many in `OUTBOX_WORKER_TIMEOUT`:
#: it counts as dead when all of them are missing. What it receives the next second's heartbeat tells.
IDLE_BEATS = 3
#: How often a relay or a beat writes its row.
SIGN_EVERY_S = 10.0
#: A relay or beat that has been silent for longer counts as dead: it missed three signs of life.
SILENT_AFTER_S = 3 * SIGN_EVERY_S
#: No message was published later than that; the year 5138.
MAX_EPOCH_S = 1e11

_incarnation: uuid.UUID | None = None
_received: dict[str, float] = {}
_stop = threading.Event()
_thread: threading.Thread | None = None


def identity(pid: int | None = None) -> str:
    """The identity of a claim: the worker incarnation and the process of its pool, this one by default; '' outside of a
    worker.

    Children inherit the incarnation. The pid is what the parent knows of a child that died: with it, it takes back
    that child's lease, and not one that a sibling holds on another copy of the same message.
    """
    return f"{_incarnation}:{pid or os.getpid()}" if _incarnation else ""


@signals.worker_init.connect
def _born(**_: Any) -> None:
    global _incarnation
    # Not the host name and pid: those come back after a restart, and the dead one's leases with them.
    _incarnation = uuid.uuid4()


@signals.worker_ready.connect
def _start(sender: Any = None, **_: Any) -> None:
    global _thread
    _stop.clear()
    # A queue that nothing was received from yet is named, too: the operator sees which worker reads which queue.
    for queue in current_app.amqp.queues.consume_from:
        _received.setdefault(queue, 0.0)
    pool = getattr(sender, "pool", None)
    _thread = threading.Thread(target=_beat, args=(pool,), name="outbox-heartbeat", daemon=True)
    _thread.start()
    # After a cold shutdown Celery sends no `worker_shutdown`.
    atexit.register(_end)


def is_stopping() -> bool:
    """Whether this worker was told to stop: then its processes may have been told, too, by a supervisor that signals
    all of them.
    """
    from celery.worker import state

    # None or False while it was not told, else the exit status, which is 0 most often.
    told: list[Any] = [state.should_stop, state.should_terminate]
    return any(status is not None and status is not False for status in told)


@signals.worker_shutdown.connect
def _end(**_: Any) -> None:
    _stop.set()
    if _thread is not None:
        _thread.join(timeout=5)


@signals.task_received.connect
def _note(request: Any = None, **_: Any) -> None:
    wire = request.request_dict.get("outbox")
    if isinstance(wire, dict):
        queue, at = request.delivery_info.get("routing_key"), wire.get("published_at")
        # Bounded: a forged message can carry infinity here, with which the heartbeat would not be JSON.
        if queue and isinstance(at, (int, float)) and _received.get(queue, 0.0) < at < MAX_EPOCH_S:
            _received[queue] = at


def _beat(pool: Any) -> None:
    from celery.worker import state

    concurrency = getattr(pool, "num_processes", 0) or 0
    written: tuple[int, dict[str, float]] | None = None
    idle_until = 0.0
    try:
        while not _stop.wait(BEAT_EVERY_S):
            active, received = len(state.active_requests), dict(_received)
            if not active and written == (active, received) and time.monotonic() < idle_until:
                continue
            try:
                write_heartbeat(concurrency=concurrency, active=active, memory_bytes=_memory_bytes(pool))
                written = active, received
                idle_until = time.monotonic() + conf.worker_timeout_s() / IDLE_BEATS
            except Error as error:
                log.warning("The heartbeat could not be written: %s", first_line(error))
                connection.close()
        # A worker that ends in order leaves no row, and no lease to wait for: its pool has ended before this.
        if _incarnation is not None and (given_back := transitions.give_back(_incarnation)):
            log.warning(
                "%d messages were running when this worker ended: another worker runs them", given_back
            )
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM outbox_worker WHERE incarnation = %s", [_incarnation])
    except Error:
        log.warning("The heartbeat row stays until the rescuer removes it")
    finally:
        connection.close()


def _memory_bytes(pool: Any) -> int:
    """Resident memory of this process and its children, shared pages counted in each; 0 where no /proc tells."""
    children = getattr(getattr(pool, "_pool", None), "_pool", None) or ()
    pages = 0
    for pid in (os.getpid(), *(child.pid for child in list(children))):
        # A child may have ended since.
        with contextlib.suppress(OSError):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def write_heartbeat(*, concurrency: int, active: int, memory_bytes: int = 0) -> None:
    """Write this incarnation's row, in the database's time."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO outbox_worker (incarnation, hostname, pid, received, concurrency, active, memory_bytes)
            VALUES (%(i)s, %(host)s, %(pid)s, %(received)s, %(concurrency)s, %(active)s, %(memory)s)
            ON CONFLICT (incarnation) DO UPDATE SET beat_at = clock_timestamp(), received = excluded.received,
                concurrency = excluded.concurrency, active = excluded.active,
                memory_bytes = excluded.memory_bytes
            """,
            {
                "i": _incarnation, "host": socket.gethostname(), "pid": os.getpid(),
                "received": json.dumps(_received), "concurrency": concurrency, "active": active, "memory": memory_bytes,
            },
        )  # fmt: skip


class SignOfLife:
    """The heartbeat row of a relay or beat, which calls `give` on each pass of its loop and `end` when it ends in order."""

    def __init__(self, role: Role) -> None:
        self._role = role
        self._row = uuid.uuid4()
        self._due = float("-inf")

    def give(self) -> None:
        """Write the row, in the database's time; within `SIGN_EVERY_S` seconds of the last time it does nothing."""
        if time.monotonic() < self._due:
            return
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO outbox_worker (incarnation, role, hostname, pid) VALUES (%s, %s, %s, %s)"
                " ON CONFLICT (incarnation) DO UPDATE SET beat_at = clock_timestamp()",
                [self._row, self._role.value, socket.gethostname(), os.getpid()],
            )
        self._due = time.monotonic() + SIGN_EVERY_S

    def end(self) -> None:
        """Remove the row: what ends in order is not missed. Raises Django's database errors.

        On a connection of its own: Celery's beat closes its scheduler in a signal handler, and of a statement that the
        signal interrupted psycopg 3 still holds the connection's lock. On that connection this would wait for ever.
        """
        other = connection.copy()
        try:
            with other.cursor() as cursor:
                cursor.execute("DELETE FROM outbox_worker WHERE incarnation = %s", [self._row])
        finally:
            other.close()
