"""How often a worker says that it lives: each second while it works, and less often while it has nothing to do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock

import pytest
from celery.worker import state
from django.conf import LazySettings
from django.db import OperationalError, connection

from outbox import heartbeat
from outbox.models import Worker
from tests.support.messages import elsewhere
from tests.support.processes import await_

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clean")]


class Beats:
    """The heartbeats of a worker in a thread; `fails`: the next one cannot be written."""

    def __init__(self) -> None:
        self.count = 0
        self.fails = False

    def run(self) -> None:
        with connection.execute_wrapper(self._note):
            heartbeat._beat(None)

    def _note(self, execute: Any, sql: str, *rest: Any) -> Any:
        self.count += "INSERT INTO outbox_worker" in sql
        if self.fails:
            self.fails = False
            raise OperationalError("the server is down")
        return execute(sql, *rest)


@pytest.fixture
def beats(monkeypatch: pytest.MonkeyPatch, settings: LazySettings) -> Iterator[Beats]:
    """Fifty a second while it works, one in twenty seconds while it does not."""
    monkeypatch.setattr(heartbeat, "BEAT_EVERY_S", 0.02)
    settings.OUTBOX_WORKER_TIMEOUT = 60
    beats = Beats()
    heartbeat._born()
    heartbeat._stop.clear()
    with elsewhere(beats.run):
        try:
            await_(lambda: Worker.objects.exists(), "the first heartbeat")
            yield beats
        finally:
            heartbeat._stop.set()
    heartbeat._incarnation = None
    heartbeat._received.clear()


def test_an_idle_worker_writes_three_heartbeats_in_its_timeout(beats: Beats, settings: LazySettings) -> None:
    time.sleep(0.3)
    assert beats.count == 1
    settings.OUTBOX_WORKER_TIMEOUT = 0.6
    heartbeat._received["default"] = 1.0  # ends the twenty seconds
    await_(lambda: beats.count == 2, "the next heartbeat")
    begun, before = time.monotonic(), beats.count
    await_(lambda: beats.count == before + 3, "three more")
    assert time.monotonic() - begun > 0.4


def test_what_a_worker_receives_or_runs_is_in_its_next_heartbeat(beats: Beats) -> None:
    heartbeat._received["default"] = 123.0
    await_(lambda: Worker.objects.get().received == {"default": 123.0}, "what it has received")
    request = MagicMock()
    state.active_requests.add(request)
    try:
        await_(lambda: Worker.objects.get().active == 1, "what it runs")
        before = beats.count
        await_(lambda: beats.count > before + 3, "it goes on while it runs something")
    finally:
        state.active_requests.discard(request)
    await_(lambda: Worker.objects.get().active == 0, "that it has ended")
    before = beats.count
    time.sleep(0.2)
    assert beats.count == before


def test_a_heartbeat_that_failed_is_written_with_the_next_beat(beats: Beats) -> None:
    beats.fails = True
    heartbeat._received["default"] = 123.0
    await_(lambda: beats.count == 3, "the one that failed, and the next")
    assert Worker.objects.get().received == {"default": 123.0}
