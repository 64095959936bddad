"""A relay or a beat that is frozen, killed or stopped: what the figures and the readiness probe say of it."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.conf import LazySettings
from django.db import connection
from django.test import Client
from django.utils import timezone

import outbox
from config import settings as configured
from outbox import heartbeat, stats
from outbox.models import Worker
from outbox.status import Role
from tests.support import tasks
from tests.support.processes import Process, await_, started

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clean", "signs_every_moment")]

#: What the processes of these tests are told, so that the tests need not wait for half a minute.
OFTEN = "import outbox.heartbeat as h; h.SIGN_EVERY_S = 0.1; "
RELAY = (
    OFTEN
    + "from django.core.management import execute_from_command_line as go; go(['manage.py', 'outbox_relay'])"
)
BEAT = (
    OFTEN
    + "from config.celery import app; app.start(['beat', '--max-interval', '1', '--pidfile=', '--loglevel', 'INFO'])"
)


@pytest.fixture
def signs_every_moment(monkeypatch: pytest.MonkeyPatch, settings: LazySettings) -> None:
    monkeypatch.setattr(heartbeat, "SILENT_AFTER_S", 2.5)
    settings.MONITORING_READY_CHECKS = {"relay": configured.MONITORING_READY_CHECKS["relay"]}


@contextmanager
def relay() -> Iterator[Process]:
    with started(["-c", RELAY], ready="relay: running") as process:
        yield process


def ready() -> tuple[int, str]:
    answer = Client().get("/readyz")
    return answer.status_code, answer.json().get("missing", {}).get("relay", "")


@pytest.mark.promise("P8", "a relay is frozen", "`/readyz` 503 and the alert `relay_lost` after 30 s")
def test_a_frozen_relay_is_missed_until_it_goes_on() -> None:
    """It is not ready as long."""
    assert ready() == (503, "NoRelay: no relay is running")
    outbox.enqueue(tasks.note.s("a"))
    assert stats.figures().relays == stats.DaemonFigures(expected=True, count=0, lately=0)

    with relay() as process:
        await_(lambda: ready()[0] == 200, "the relay's first sign of life")
        (row,) = [row for row in stats.processes() if row.role == "relay"]
        assert (row.pid, row.alive) == (process.pid, True)

        process.signal(signal.SIGSTOP)
        await_(lambda: ready()[0] == 503, "the probe says that no relay lives", 5)
        assert ready()[1].startswith("NoRelay: no relay has given a sign of life for ")
        assert stats.figures().relays == stats.DaemonFigures(expected=True, count=0, lately=1)
        assert [(row.role, row.alive) for row in stats.processes()] == [("relay", False)]

        process.signal(signal.SIGCONT)
        await_(lambda: ready()[0] == 200, "the relay goes on", 5)
        assert process.stop() == 0

    assert stats.processes() == [], "a relay that ends in order is not missed"


def test_a_killed_relay_is_missed_until_it_is_replaced() -> None:
    """It is one of two."""

    def relay_row(*, began: int, silent_for: int) -> None:
        now = timezone.now()
        Worker.objects.create(
            incarnation=uuid.uuid4(), role=Role.RELAY, hostname="h", pid=1,
            started_at=now - timedelta(seconds=began), beat_at=now - timedelta(seconds=silent_for),
        )  # fmt: skip

    relay_row(began=600, silent_for=0)
    relay_row(began=600, silent_for=60)
    assert stats.figures().relays == stats.DaemonFigures(expected=True, count=1, lately=2)
    assert ready()[0] == 200, "the other one publishes"
    relay_row(began=50, silent_for=0)
    assert stats.figures().relays == stats.DaemonFigures(expected=True, count=2, lately=2)


@pytest.mark.promise("P8", "beat is frozen", "the alert `beat_lost` after 30 s")
def test_a_frozen_beat_is_missed_until_it_goes_on() -> None:
    assert not stats.figures().beats.expected, "without a schedule"

    with started(["-c", BEAT], env={"HOLDFAST_TEST_TICK": "1"}, ready="beat: Starting") as process:
        await_(lambda: stats.figures().beats == stats.DaemonFigures(True, 1, 1), "beat's first sign of life")

        process.signal(signal.SIGSTOP)
        await_(lambda: stats.figures().beats == stats.DaemonFigures(True, 0, 1), "it is silent", 5)

        process.signal(signal.SIGCONT)
        await_(lambda: stats.figures().beats.count == 1, "beat goes on", 5)
        process.stop()

    assert stats.figures().beats == stats.DaemonFigures(expected=True, count=0, lately=0)
    assert not Worker.objects.exists()


#: Ends as Celery's beat does, in a signal handler, and in the middle of a statement.
INTERRUPTED = """
import signal, sys, django
django.setup()
from django.db import connection
from outbox.heartbeat import SignOfLife
from outbox.status import Role
sign = SignOfLife(Role.BEAT)
sign.give()
def end(*_):
    sign.end()
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("it sleeps", flush=True)
with connection.cursor() as cursor:
    cursor.execute("SELECT pg_sleep(3)")
"""


def test_a_beat_stopped_within_a_statement_is_not_missed() -> None:
    """It ends."""
    with started(["-c", INTERRUPTED], ready="it sleeps") as process:
        await_(Worker.objects.exists, "its sign of life")
        await_(sleeps, "its statement runs")
        assert process.stop() == 0
    assert not Worker.objects.exists()


def sleeps() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(3)' AND state = 'active'"
        )
        return cursor.fetchone() is not None


def test_relays_and_beats_are_no_workers() -> None:
    for role in (Role.RELAY, Role.BEAT):
        heartbeat.SignOfLife(role).give()
    workers = stats.figures().workers
    assert (workers.count, workers.lately) == (0, 0)
