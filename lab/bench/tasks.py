"""The tasks that benchmarks run. Their table is made by `lab.bench.world`, not by a migration of the product."""

from __future__ import annotations

import time

from celery import shared_task
from django.db import connection

from lab.bench import effects


@shared_task(transactional=True)
def noop(number: int) -> None:
    """Nothing, claimed and settled in one transaction."""


@shared_task
def leased_noop(number: int) -> None:
    """Nothing, claimed with a lease in a transaction of its own and settled in another."""


@shared_task(transactional=True)
def write(number: int) -> None:
    """One row, in the transaction that settles the message."""
    effects.write(number)


@shared_task
def stamp(number: int) -> None:
    """The time at which its body began, by the clock that the benchmark uses too."""
    effects.write(number, at=time.time())


@shared_task
def held(number: int) -> None:
    """Its first run never ends, any other at once: what a killed worker had in flight."""
    effects.write(number)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM bench_effect WHERE number = %s", [number])
        if cursor.fetchone()[0] == 1:
            time.sleep(300)
