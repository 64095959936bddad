"""What a worker tells the journal about itself: that it lives, and how far it has read each queue.

One thread in the worker's parent writes one row a second. The sweeper reads from it which started messages
have lost their worker, and which published ones were overtaken in their queue and so must be lost.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import uuid
from typing import Any

from celery import signals
from django.db import Error, connection

log = logging.getLogger(__name__)

BEAT_EVERY_S = 1.0

_incarnation: uuid.UUID | None = None
_received: dict[str, float] = {}
_stop = threading.Event()
_thread: threading.Thread | None = None


def identity(pid: int | None = None) -> str:
    """Who claims: the worker incarnation and the process of its pool, this one by default; '' outside of a worker.

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
    concurrency = getattr(getattr(sender, "pool", None), "num_processes", 0) or 0
    _thread = threading.Thread(target=_beat, args=(concurrency,), name="outbox-heartbeat", daemon=True)
    _thread.start()


@signals.worker_shutdown.connect
def _end(**_: Any) -> None:
    _stop.set()
    if _thread is not None:
        _thread.join(timeout=5)


@signals.task_received.connect
def _note(request: Any = None, **_: Any) -> None:
    wire = request.request_dict.get("outbox")
    if wire:
        queue, at = request.delivery_info.get("routing_key"), wire.get("published_at", 0.0)
        if queue and at > _received.get(queue, 0.0):
            _received[queue] = at


def _beat(concurrency: int) -> None:
    from celery.worker import state

    try:
        while not _stop.wait(BEAT_EVERY_S):
            try:
                write_heartbeat(concurrency=concurrency, active=len(state.active_requests))
            except Error as error:
                log.warning("No heartbeat: %s", str(error).strip().split("\n")[0])
                connection.close()
        # A worker that ends in order leaves no row, and no lease to wait for.
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM outbox_worker WHERE incarnation = %s", [_incarnation])
    except Error:
        log.warning("The heartbeat row stays until the sweeper removes it")
    finally:
        connection.close()


def write_heartbeat(*, concurrency: int, active: int) -> None:
    """Write this incarnation's row, in the database's time."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO outbox_worker (incarnation, hostname, pid, received, concurrency, active)
            VALUES (%(i)s, %(host)s, %(pid)s, %(received)s, %(concurrency)s, %(active)s)
            ON CONFLICT (incarnation) DO UPDATE SET beat_at = clock_timestamp(), received = excluded.received,
                concurrency = excluded.concurrency, active = excluded.active
            """,
            {
                "i": _incarnation, "host": socket.gethostname(), "pid": os.getpid(),
                "received": json.dumps(_received), "concurrency": concurrency, "active": active,
            },
        )  # fmt: skip
