"""Tasks with time limits of their own."""

from __future__ import annotations

import time

from celery import shared_task
from django.db import connection

from tests.support import effects


@shared_task(soft_time_limit=2, time_limit=60)
def note_soon(name: str) -> None:
    effects.add(name)


@shared_task(soft_time_limit=None, time_limit=8)
def note_hard(name: str) -> None:
    effects.add(name)


@shared_task(transactional=True, soft_time_limit=None, time_limit=8)
def note_once_hard(name: str) -> None:
    effects.add(name)


@shared_task(soft_time_limit=None, time_limit=4, max_deliveries=2)
def asks_for_ever() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(600)")


@shared_task(transactional=True, soft_time_limit=2, time_limit=60)
def note_once_soon(name: str) -> None:
    effects.add(name)


@shared_task(transactional=True, soft_time_limit=2, time_limit=60)
def slow_once_soon(name: str, seconds: float) -> None:
    time.sleep(seconds)
    effects.add(name)
