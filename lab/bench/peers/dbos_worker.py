"""DBOS: `python -m lab.bench.peers.dbos_worker enqueue COUNT` or `… work`; the row is written by a step, in Django."""

from __future__ import annotations

import os
import sys
import threading

import django
from dbos import DBOS, DBOSClient
from django.conf import settings

QUEUE = "bench"
#: Each thread has a Django connection of its own; of threads without a bound, its default, the server runs out of those.
THREADS = 16
os.environ["DJANGO_SETTINGS_MODULE"] = "lab.bench.peers.procrastinate_settings"


@DBOS.step()
def write_step(number: int) -> None:
    """One row."""
    from lab.bench import effects

    effects.write(number)


@DBOS.workflow()
def write(number: int) -> None:
    """What is enqueued: a workflow of one step."""
    write_step(number)


def main(command: str, count: int = 0) -> None:
    settings.INSTALLED_APPS = []
    django.setup()
    url = os.environ["DATABASE_URL"].replace("postgres://", "postgresql://")
    DBOS(
        config={
            "name": "bench",
            "system_database_url": url,
            "application_version": "1",
            "executor_id": str(os.getpid()),
            "log_level": "WARNING",
            "max_executor_threads": THREADS,
        }
    )
    if command == "enqueue":
        DBOS.launch()
        DBOS.register_queue(QUEUE)
        DBOS.destroy()
        client = DBOSClient(system_database_url=url)
        for number in range(count):
            client.enqueue(
                {"workflow_name": write.__qualname__, "queue_name": QUEUE, "app_version": "1"}, number
            )
        return
    DBOS.launch()
    DBOS.register_queue(QUEUE)
    print("working", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1], *(int(number) for number in sys.argv[2:]))
