"""Plain Celery: late acknowledgement and nothing else. `celery -A lab.bench.peers.plain worker`."""

from __future__ import annotations

import os

from celery import Celery

# Not the current app: in the process of the benchmarks that would take our tasks away from the outbox.
app = Celery("plain", broker=os.environ.get("BROKER_URL", ""), set_as_current=False)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=int(os.environ.get("WORKER_PREFETCH", "1")),
    task_ignore_result=True,
    task_default_queue="plain",
    broker_connection_retry_on_startup=True,
)


@app.task
def noop(number: int) -> None:
    """Nothing."""
