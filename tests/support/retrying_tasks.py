"""Tasks that ask to be run again: retries in every word of Celery's, and deferrals."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from celery import shared_task
from celery.exceptions import Retry

import outbox
from tests.support import effects


@shared_task
def deferred_until(name: str, runs: int) -> None:
    effects.add(name)
    if effects.count(name) < runs:
        raise outbox.Defer(60, "not yet")


@shared_task(bind=True, max_retries=3)
def retries_itself(self: Any, name: str) -> None:
    effects.add(name)
    self.retry(countdown=7)


@shared_task(bind=True, max_retries=2)
def retries_at_its_end(self: Any, name: str) -> None:
    self.retry(throw=False, countdown=7)
    effects.add(name)


@shared_task(bind=True, max_retries=1)
def retries_with(self: Any, name: str, **options: Any) -> None:
    effects.add(name)
    if options.get("naive_eta_in_s"):
        now = datetime.now(self.app.timezone).replace(tzinfo=None)
        self.retry(eta=now + timedelta(seconds=options["naive_eta_in_s"]))
    self.retry(countdown=float(options["countdown"]))


@shared_task(retry_schedule=(40, 50))
def raises_a_bare_retry(name: str) -> None:
    effects.add(name)
    raise Retry


@shared_task(autoretry_for=(ConnectionError,), retry_kwargs={"max_retries": 1, "countdown": 4000})
def retries_in_celerys_words(name: str) -> None:
    effects.add(name)
    raise ConnectionError("the other side is down")


@shared_task(autoretry_for=(ConnectionError,), max_retries=1, default_retry_delay=4000)
def retries_after_the_default_delay(name: str) -> None:
    effects.add(name)
    raise ConnectionError("the other side is down")


@shared_task
def deferred_for(name: str, seconds: str) -> None:
    raise outbox.Defer(float(seconds))
