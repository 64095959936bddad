"""Lesson "monitoring": a figure that every process reads alike, and a gap where it cannot be read."""

from __future__ import annotations

from typing import Any

import pytest

import outbox
from lab.lessons.monitoring import Figures
from monitoring.metrics import registry
from monitoring.snapshot import QueueMonitor
from outbox.testing import drain
from tests.support.tasks import note

JOBS = 3


def test_wrong_each_process_has_a_figure_of_its_own() -> None:
    web, worker = Figures(), Figures()

    for _ in range(JOBS):
        web.enqueued()
        worker.done()

    assert (web.waiting, worker.waiting) == (JOBS, -JOBS)


@pytest.mark.django_db
def test_right_every_process_reads_the_same_rows() -> None:
    outbox.enqueue_many([note.s(str(number)) for number in range(JOBS)])
    waiting = QueueMonitor().snapshot().depth

    drain()

    assert (waiting, QueueMonitor().snapshot().depth) == (JOBS, 0)


@pytest.mark.django_db
def test_right_a_source_that_cannot_be_read_is_a_gap(settings: Any) -> None:
    unavailable = {"findings": "tests.monitoring.figures.unavailable"}
    settings.MONITORING_SOURCES = settings.MONITORING_SOURCES | unavailable

    families = {family.name for family in registry.collect()}

    assert "holdfast_queue_depth" in families
    assert "holdfast_findings_open" not in families
