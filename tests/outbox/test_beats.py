"""Other beats than the outbox's: Celery's own and django-celery-beat's write a row with every tick."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import current_app
from celery.beat import PersistentScheduler

from outbox.models import OutboxMessage
from outbox.testing import drain, staged
from tests.support import effects
from tests.support.celery_settings import celery_settings
from tests.support.processes import ROOT, environment

#: In the test database, with tables that exist in one transaction only.
DJANGO_CELERY_BEAT = """
from django.conf import settings
settings.INSTALLED_APPS.append("django_celery_beat")
import django; django.setup()
from django.db import connection, transaction
from config.celery import app
from django_celery_beat import models, schedulers
from outbox.testing import staged

note = "tests.support.tasks.note"
with transaction.atomic():
    with connection.schema_editor() as editor:
        for name in "IntervalSchedule CrontabSchedule SolarSchedule ClockedSchedule PeriodicTasks PeriodicTask".split():
            editor.create_model(getattr(models, name))
    every = models.IntervalSchedule.objects.create(every=1, period="seconds")
    models.PeriodicTask.objects.create(name="a", task=note, args='["a"]', interval=every, queue="low")
    models.PeriodicTask.objects.create(name="b", task=note, args='["b"]', interval=every, expire_seconds=5)
    schedulers.close_old_connections = lambda: None  # It would end the transaction.
    scheduler = schedulers.DatabaseScheduler(app)
    for name, entry in scheduler.schedule.items():
        scheduler.apply_entry(entry)
    for message in staged():
        print(message.task, message.args, message.queue, message.headers.get("periodic_task_name"))
    transaction.set_rollback(True)
"""


@pytest.fixture
def celerys_beat(tmp_path: Path) -> Iterator[PersistentScheduler]:
    entry = {"task": "tests.support.tasks.note", "args": ["a"], "schedule": 1.0}
    entries = {"known": entry, "by name": entry | {"options": {"queue": "low"}}}
    with celery_settings(beat_schedule=entries):
        scheduler = PersistentScheduler(current_app, schedule_filename=str(tmp_path / "schedule"))
        yield scheduler
        scheduler.close()


@pytest.mark.django_db
def test_each_entry_of_celerys_own_beat_is_a_row(
    celerys_beat: PersistentScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    # Its own entry, the clean-up of results, is among them.
    entries = list(celerys_beat.schedule.values())
    assert "celery.backend_cleanup" in {entry.task for entry in entries}
    for entry in entries:
        celerys_beat.apply_entry(entry, producer=celerys_beat.producer)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(staged()) == len(entries) == 3
    drain()
    assert effects.names() == ["a", "a"]
    assert set(OutboxMessage.objects.values_list("status", flat=True)) == {"done"}


@pytest.mark.django_db(transaction=True)
def test_each_entry_of_django_celery_beat_is_a_row() -> None:
    """One that expires is refused by name."""
    ended = subprocess.run(
        [sys.executable, "-c", DJANGO_CELERY_BEAT],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "tests.support.tasks.note ['a'] low a" in ended.stdout.splitlines()
    assert "cannot keep `expires`: check in the task" in ended.stderr
    assert ended.stderr.count("Message Error") == 1
