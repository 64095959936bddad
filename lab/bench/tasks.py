"""The tasks that benchmarks run. Their table is made by `lab.bench.world`, not by a migration of the product."""

from __future__ import annotations

import time

from celery import shared_task

from lab.bench import effects

RELEASED = -1


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
    """Never ends if it begins before `RELEASED` is written: what a killed worker had in flight."""
    effects.write(number)
    if not effects.count(RELEASED):
        time.sleep(300)
