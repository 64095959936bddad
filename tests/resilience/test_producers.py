"""A producer that is faster than its consumers: the backlog is on disk, and neither side's memory pays for it."""

import time
import tracemalloc

import pytest

from outbox.testing import drain, staged
from tests.support.tasks import note

pytestmark = pytest.mark.django_db


@pytest.mark.described("a fast producer and a slow consumer: all twenty jobs are processed, none is dropped")
def test_a_slow_consumer_of_twenty_rapid_jobs_processes_all_of_them(mocker) -> None:
    processed: list[float] = []

    def slowly(name: str) -> None:
        time.sleep(0.01)
        processed.append(time.monotonic())

    mocker.patch("tests.support.effects.add", side_effect=slowly)
    for index in range(20):
        note.delay(f"item-{index}")
    assert processed == []
    drain()
    assert len(processed) == 20
    assert processed[-1] - processed[0] < 2.0


@pytest.mark.described("a thousand jobs cost their producer less than 10 MB")
def test_a_thousand_enqueued_jobs_cost_the_producer_less_than_ten_megabytes() -> None:
    note.delay("the first one loads what is loaded once")
    tracemalloc.start()
    try:
        before = tracemalloc.take_snapshot()
        for index in range(1000):
            note.delay(f"item-{index}")
        differences = tracemalloc.take_snapshot().compare_to(before, "lineno")
    finally:
        tracemalloc.stop()
    assert len(staged()) == 1001
    added = sum(line.size_diff for line in differences if line.size_diff > 0)
    assert added < 10 * 1024 * 1024
