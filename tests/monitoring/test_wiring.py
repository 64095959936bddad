"""The figures of the real sources, as this project wires them."""

import pytest
from django.conf import settings as configured

import outbox
from monitoring.snapshot import QueueMonitor
from outbox.testing import drain
from tests.support.tasks import note, permanently_wrong

SOURCES = configured.MONITORING_SOURCES


@pytest.fixture(autouse=True)
def sources(settings) -> None:
    settings.MONITORING_SOURCES = SOURCES


@pytest.mark.django_db
def test_what_is_enqueued_completed_and_dead_shows_in_the_snapshot() -> None:
    outbox.enqueue_many([note.s("a"), note.s("b")], queue="high")
    outbox.enqueue(note.s("later"), queue="high", delay=3600)
    waiting = QueueMonitor().snapshot()
    assert (waiting.depth, waiting.queues["high"].depth, waiting.scheduled) == (2, 2, 1)

    outbox.enqueue(permanently_wrong.s("c"), queue="low")
    drain()
    settled = QueueMonitor().snapshot()
    assert (settled.depth, settled.scheduled) == (0, 0)
    assert settled.queues["high"].done_last_minute == 3
    assert settled.throughput_per_sec == 3 / 60
    assert settled.avg_latency_ms > 0
    assert settled.error_rate == 1 / 4
    assert settled.dead_letter_count == 1
    assert settled.oldest_dead_letter_age_s >= 0


@pytest.mark.django_db
def test_every_source_answers_the_scrape(client) -> None:
    outbox.enqueue(permanently_wrong.s("c"), queue="low")
    drain()
    page = client.get("/metrics").content.decode()
    assert 'monitoring_source_up{source="outbox"} 1.0' in page
    assert 'monitoring_source_up{source="dlq"} 1.0' in page
    assert 'dlq_messages{queue="low",state="open",task="tests.support.tasks.permanently_wrong"} 1.0' in page
