"""The end of a run that its process could not record, written to its row by the worker's parent.

For a worker without a dead-letter app, whose classes do this themselves. A thread of its own writes: the parent must go on
feeding its processes while the database is down. What is lost with the parent is not lost: the lease of the run ends, and
the rescuer makes the message publishable again.
"""

from __future__ import annotations

import logging
import threading
from functools import partial
from queue import SimpleQueue
from typing import Any

from django.db import connection

from outbox.database import patiently
from outbox.dlq_hooks import generation
from outbox.worker_failure import worker_failure

log = logging.getLogger(__name__)

_endings: SimpleQueue[dict[str, Any]] = SimpleQueue()
_start = threading.Lock()
_thread: threading.Thread | None = None


def record(
    headers: dict[str, Any],
    exception: BaseException,
    *,
    traceback: str = "",
    lost: bool = False,
    pid: int | None = None,
) -> bool:
    """Have this end written, soon; False for a message without a row. The arguments are those of `worker_failure`."""
    global _thread
    run = generation(headers)
    if run is None:
        return False
    error = str(exception) or type(exception).__name__
    _endings.put(
        {
            "message_id": headers.get("id"),
            "generation": run,
            "exception": exception,
            "error": error,
            "traceback": traceback,
            "lost": lost,
            "pid": pid,
        }
    )
    with _start:
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_write_all, name="outbox-endings", daemon=True)
            _thread.start()
    return True


def _write_all() -> None:
    while True:
        ending = _endings.get()
        try:
            patiently(partial(worker_failure, **ending))
        except Exception:
            log.exception(
                "The end of message %s could not be recorded; another worker runs it when its lease has ended",
                ending["message_id"],
            )
        finally:
            connection.close()
