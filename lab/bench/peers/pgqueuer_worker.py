"""pgqueuer: `python -m lab.bench.peers.pgqueuer_worker enqueue COUNT` or `… work`; the row is written in Django."""

from __future__ import annotations

import asyncio
import os
import sys

import asyncpg
import django
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

ENTRYPOINT = "write"
os.environ["DJANGO_SETTINGS_MODULE"] = "lab.bench.peers.procrastinate_settings"


async def enqueue(count: int) -> None:
    """Make its tables where there are none, empty the queue, and enqueue that many."""
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    queries = Queries(AsyncpgDriver(connection))
    if not await queries.schema_is_installed():
        await queries.install()
    await queries.clear_queue()
    await queries.enqueue(
        [ENTRYPOINT] * count, [str(number).encode() for number in range(count)], [0] * count
    )
    await connection.close()


async def work() -> None:
    from lab.bench import effects

    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    queue = PgQueuer(AsyncpgDriver(connection))

    # Django's connections are not for coroutines: in a thread, as its error for such a function advises.
    @queue.entrypoint(ENTRYPOINT)
    async def write(job: Job) -> None:
        await asyncio.to_thread(effects.write, int(job.payload or b"0"))

    print("working", flush=True)
    await queue.run()


def main(command: str, count: int = 0) -> None:
    from django.conf import settings

    settings.INSTALLED_APPS = []
    django.setup()
    asyncio.run(enqueue(count) if command == "enqueue" else work())


if __name__ == "__main__":
    main(sys.argv[1], *(int(number) for number in sys.argv[2:]))
