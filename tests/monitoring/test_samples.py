"""Samples of the real sources, and who takes them."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.db import connection

import outbox
from monitoring import samples
from monitoring.models import Sample
from orders.seed import seed_demo
from outbox import series, totals
from outbox.testing import drain
from tests.orders.conftest import place
from tests.support.processes import await_, started
from tests.support.tasks import note, permanently_wrong

pytestmark = pytest.mark.django_db


def test_two_takers_take_a_tick_once() -> None:
    taken_in = {int(time.time()) // samples.EVERY_S}
    for _ in range(2):
        assert samples.EVERY_S * 0.5 <= samples.take() <= samples.EVERY_S * 1.5
    taken_in.add(int(time.time()) // samples.EVERY_S)
    ticks = list(Sample.objects.values_list("tick", flat=True))
    assert len(ticks) <= len(taken_in)
    assert all(tick % samples.EVERY_S == 0 for tick in ticks)


def test_samples_are_kept_for_a_day() -> None:
    now = int(time.time()) // samples.EVERY_S * samples.EVERY_S
    day = samples.KEPT * samples.EVERY_S
    Sample.objects.bulk_create(Sample(tick=now - ago, figures={}) for ago in (day + 15, day, day - 60, 30))
    samples.take()
    assert min(Sample.objects.values_list("tick", flat=True)) == now - day + 60
    assert len(samples.since(60)) == 2


def test_a_source_that_fails_is_a_gap_and_no_zero(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    settings.MONITORING_SERIES = settings.MONITORING_SERIES | {
        "outbox": "tests.monitoring.figures.unavailable"
    }
    samples.take()
    ((_, figures),) = samples.since(60)
    assert "dead_letters" in figures
    assert "waiting" not in figures
    assert "no figures of outbox" in caplog.text


def test_a_sample_says_what_came_what_was_done_and_what_waits() -> None:
    outbox.enqueue_many([note.s("a"), note.s("b")], queue="low")
    drain()
    totals.count_once()
    outbox.enqueue(note.s("c"), queue="low")
    outbox.enqueue(permanently_wrong.s("d"), queue="low")
    drain()
    seed_demo()
    place()  # with two messages
    outbox.enqueue(note.s("later"), queue="high", delay=3600)
    samples.take()
    ((_, figures),) = samples.since(60)
    assert figures["messages_done_total"] == 3
    assert figures["messages_in_total"] >= 7
    assert (figures["pending"], figures["waiting"], figures["scheduled"]) == (2, 2, 1)
    assert 0 < figures["latency_p50_s"] <= figures["latency_p95_s"] <= figures["latency_p99_s"]
    assert (figures["dead_letters"], figures["dead_letters_in_a_minute"]) == (1, 1)
    assert figures["dead_letters_out_a_minute"] == 0
    assert figures["orders_a_minute"] == 1


def test_a_sample_reads_only_a_limited_number_of_open_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And no row that is done."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO outbox_outboxmessage (message_id, task, queue, status, done_at)"
            " SELECT gen_random_uuid(), 't', 'low', s, CASE s WHEN 'done' THEN clock_timestamp() - interval '1 day' END"
            " FROM generate_series(1, 25000), unnest(ARRAY['done', 'pending']) s"
        )
        totals.count_once()
        cursor.execute("ANALYZE outbox_outboxmessage")
        cursor.execute(f"EXPLAIN (ANALYZE, TIMING OFF) {series._SQL}")
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "Seq Scan on outbox_outboxmessage" not in plan, plan
    assert series.series()["pending"] == series.COUNTED


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_beat_takes_samples_while_relay_workers_and_broker_are_down(clean: None) -> None:
    arguments = ("-m", "celery", "-A", "config", "beat", "--loglevel", "INFO")
    with started(arguments, env={"BROKER_URL": "redis://127.0.0.1:1/0"}, ready="beat: Starting"):
        await_(Sample.objects.exists, "beat has taken a sample")
