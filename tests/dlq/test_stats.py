"""The figures that metrics and alerts are made of."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from dlq import groups, record, stats
from dlq.models import DeadLetter, State
from tests.dlq.test_record import die, receive

pytestmark = pytest.mark.django_db


def test_without_dead_letters_every_figure_is_there_and_zero() -> None:
    assert stats.stats() == {
        "open": 0,
        "replaying": 0,
        "grown_last_hour": 0,
        "by_queue": [],
        "oldest_age_s": None,
        "dead_lettered": [],
        "replays": {"sent": 0, "succeeded": 0, "failed": 0, "returned": 0},
    }


def test_the_union_over_all_that_happened_is_in_no_order() -> None:
    """Django 6.1 refuses the model's own order here, by a column that the union does not have; 5.2 leaves it out."""
    assert not stats.happened().ordered


def test_open_dead_letters_are_counted_by_queue_and_task() -> None:
    """Closed ones are not counted."""
    die("a")
    die("b")
    die("c", queue="low", task="t")
    die("d")
    record.on_resolved("d")
    found = stats.stats()
    assert found["open"] == 3
    assert found["by_queue"] == [
        {"queue": "critical", "task": "orders.tasks.process_order", "state": "open", "count": 2},
        {"queue": "low", "task": "t", "state": "open", "count": 1},
    ]
    assert sum(row["count"] for row in found["dead_lettered"]) == 4


def test_names_that_a_producer_invents_are_no_labels_of_the_metrics() -> None:
    for number in range(3):
        receive(f"m-{number}", task=f"invented-{number}")
    found = stats.stats()
    assert [(row["task"], row["count"]) for row in found["by_queue"]] == [("unknown", 3)]
    assert [(row["task"], row["count"]) for row in found["dead_lettered"]] == [("unknown", 3)]


def test_the_oldest_age_is_that_of_an_open_dead_letter() -> None:
    now = timezone.now()
    die("open")
    die("older but replaying")
    DeadLetter.objects.filter(message_id="open").update(failed_first_at=now - timedelta(minutes=10))
    DeadLetter.objects.exclude(message_id="open").update(
        state=State.REPLAYING, replayed_at=now, failed_first_at=now - timedelta(days=1)
    )
    assert stats.stats()["oldest_age_s"] == pytest.approx(600, abs=5)
    assert stats.stats()["replaying"] == 1


def test_growth_is_new_dead_letters_less_closed_old_ones() -> None:
    long_ago = timezone.now() - timedelta(days=1)
    for name in ("old", "closed now", "closed long ago"):
        die(name)
    record.on_resolved("closed now")
    record.on_resolved("closed long ago")
    DeadLetter.objects.update(failed_first_at=long_ago)
    DeadLetter.objects.filter(message_id="closed long ago").update(closed_at=long_ago)
    assert stats.stats()["grown_last_hour"] == -1
    for name in ("a", "b", "c"):
        die(name)
    record.on_resolved("c")
    assert stats.stats()["grown_last_hour"] == 1


def test_a_group_has_its_count_its_span_and_its_trend() -> None:
    for number in range(3):
        die(f"a-{number}")
    DeadLetter.objects.filter(message_id="a-0").update(failed_at=timezone.now() - timedelta(days=2))
    DeadLetter.objects.filter(message_id="a-1").update(failed_at=timezone.now() - timedelta(hours=2))
    (group,) = groups.shown(groups.open_groups())
    assert group.title == "ValueError: ValueError: no"
    assert (group.count, group.last_hour, group.last_day, group.last_week) == (3, 1, 2, 3)
    assert group.last_replay_at is None
