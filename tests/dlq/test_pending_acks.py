"""The database is down: nothing is acknowledged, nothing hangs, nothing spins; when it is back, all is recorded."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.db import connection

from config.celery import app
from dlq.models import DeadLetter
from tests.dlq.corpus import TASK
from tests.support import effects, rawpublish
from tests.support.brokers import on_rabbitmq_in_proof
from tests.support.processes import await_, worker
from tests.support.proxy import Proxy, proxied

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("clean"), on_rabbitmq_in_proof]


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """In front of the test database; only the worker goes through it."""
    settings = connection.settings_dict
    with proxied(settings["HOST"], int(settings["PORT"])) as proxy:
        yield proxy


def database_url(proxy: Proxy) -> str:
    url = urlsplit(os.environ["DATABASE_URL"])
    user = url.netloc.rpartition("@")[0]
    return urlunsplit(
        url._replace(netloc=f"{user}@127.0.0.1:{proxy.port}", path=f"/{connection.settings_dict['NAME']}")
    )


def send_what_ends_badly() -> set[str]:
    """More than the worker's two prefetch slots hold: what runs out of time, what fails, what it cannot read."""
    tasks = [*(f"tests.support.tasks.{name}_without_database" for name in ("hangs", "wrong")), "no.such.task"]
    return {rawpublish.send(task) for task in tasks * 2}


@pytest.mark.promise(
    "P5",
    "a message ends badly while the database is down",
    "its record is held until it can be written",
    celery="acknowledges it: lost",
)
@pytest.mark.promise(
    "P4",
    "the database is down while a worker records a failure",
    "the parent neither hangs nor spins nor acknowledges",
)
@pytest.mark.parametrize("outage", ["refuse", "freeze", pytest.param("mute", marks=pytest.mark.proof)])
def test_while_the_database_is_down_nothing_is_acknowledged(proxy: Proxy, outage: str) -> None:
    """The parent neither hangs nor spins."""
    with worker(concurrency=2, env={"DATABASE_URL": database_url(proxy)}) as process:
        getattr(proxy, outage)()
        ids = send_what_ends_badly()
        await_(lambda: "wait unacknowledged to be recorded" in process.output(), "endings wait")

        cpu_before, asked_before, since = process.cpu_s(), proxy.attempts, time.monotonic()

        # The event loop answers while the endings wait, again and again.
        for _ in range(3):
            await_(lambda: app.control.ping(timeout=2), "the worker answers", 15)
        await_(lambda: time.monotonic() - since > 4, "the outage has lasted a while")
        lasted_s = time.monotonic() - since

        assert process.cpu_s() - cpu_before < 0.25 * lasted_s, "it spins"
        # The outbox's heartbeat asks once a second, too.
        assert proxy.attempts - asked_before < 3 * lasted_s, "it asks a dead database without end"
        assert DeadLetter.objects.count() == 0

        proxy.heal()
        await_(lambda: DeadLetter.objects.count() == len(ids), "all are recorded", 60)
        rawpublish.send(TASK, "good")
        await_(lambda: effects.count("good") == 1, "the next good message runs")
        assert process.alive()

    assert set(DeadLetter.objects.values_list("message_id", flat=True)) == ids
    assert rawpublish.depth() == 0


def test_a_worker_stopped_during_an_outage_gives_back_unrecorded_messages(
    proxy: Proxy,
) -> None:
    """The database is down: what could not be recorded goes back to the broker."""
    with worker(concurrency=2, env={"DATABASE_URL": database_url(proxy)}) as process:
        proxy.refuse()
        ids = send_what_ends_badly()
        await_(lambda: "2 ended messages wait" in process.output(), "the slots are held")
        process.signal(signal.SIGTERM)
        process.popen.wait(30)
    assert rawpublish.depth() == len(ids)
    with worker(concurrency=2):
        await_(lambda: DeadLetter.objects.count() == len(ids), "another worker records all")
    assert set(DeadLetter.objects.values_list("message_id", flat=True)) == ids
