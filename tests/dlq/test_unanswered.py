"""A replay that is lost is seen: its dead letter is open again, and what comes of it after all still counts."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.management import call_command
from django.db import transaction
from django.utils import timezone

from config.settings import CELERY_BEAT_SCHEDULE
from dlq import record, replay, stats, unanswered
from dlq.message import RawMessage
from dlq.models import Cause, DeadLetter, DeadLetterEvent, Happened, State
from dlq.queue import DeadLetterQueue
from monitoring import alerts
from monitoring.snapshot import QueueMonitor
from tests.dlq.concurrency import at_once
from tests.dlq.test_record import die, happened, receive
from tests.support import brokers, effects, rawpublish
from tests.support.brokers import on_rabbitmq_in_proof
from tests.support.processes import await_, worker

pytestmark = pytest.mark.django_db(transaction=True)
NOTE = "tests.support.tasks.note"


def be_silent(*, over: timedelta = replay.SILENT_AFTER) -> None:
    """All dead letters were sent again, and not heard of since, for as long."""
    DeadLetter.objects.update(state=State.REPLAYING, replayed_at=timezone.now() - over)


@pytest.mark.promise(
    "P5",
    "the replay of a message without a row is lost with its broker or its sender",
    "an open dead letter again, after an hour",
    celery="knows nothing of it",
)
@pytest.mark.usefixtures("clean")
def test_a_replay_that_its_broker_lost_is_an_open_dead_letter_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    dead_letter = receive(task=NOTE)
    replay.replay(dead_letter.pk)
    brokers.empty()
    DeadLetter.objects.update(failed_first_at=timezone.now() - timedelta(days=6))
    be_silent(over=timedelta(days=5))

    assert unanswered.reopen() == 1

    assert happened() == [Happened.FAILED, Happened.REPLAYED, Happened.RETURNED]
    assert "has had no outcome for 1:00:00" in DeadLetterEvent.objects.latest("id").note
    found = stats.stats()
    assert (found["open"], found["replaying"], found["replays"]["returned"]) == (1, 0, 1)
    assert found["dead_lettered"][0]["count"] == 1, "it did not die once more"
    assert "dead_letter_age" in {alert.name for alert in alerts.evaluate(QueueMonitor().snapshot())}

    call_command("dlq", "list")
    assert "m-1" in capsys.readouterr().out
    call_command("dlq", "replay", "--all")
    be_silent()
    unanswered.reopen()
    replay.discard(dead_letter.pk, reason="paid by hand")


@pytest.mark.slow
@on_rabbitmq_in_proof
@pytest.mark.usefixtures("clean")
def test_a_replay_that_runs_after_being_given_up_resolves_its_dead_letter() -> None:
    raw = RawMessage(
        *(b'[["late"], {}, null]', "application/json", "utf-8"),
        headers=rawpublish.task_headers(NOTE, id="m-1"),
        properties={},
        delivery_info={"routing_key": rawpublish.QUEUE},
    )
    dead_letter = record.record_raw(message_key="m-1", raw=raw, cause=Cause.FAILED, error="no", task=NOTE)
    rawpublish.depth()  # declares the queue, without which RabbitMQ takes nothing
    replay.replay(dead_letter.pk)
    be_silent()
    assert unanswered.reopen() == 1
    with worker():
        await_(
            lambda: DeadLetter.objects.filter(state=State.RESOLVED).exists(), "the dead letter is resolved"
        )
    assert effects.count("late") == 1
    assert happened() == [Happened.FAILED, Happened.REPLAYED, Happened.RETURNED, Happened.RESOLVED]


def test_a_replay_that_fails_after_it_was_given_up_is_recorded_once() -> None:
    receive()
    be_silent()
    unanswered.reopen()
    for _ in range(2):  # Two hooks may report one ending.
        receive(replayed=True, exception=KeyError("late"), error="late")
    dead_letter = DeadLetter.objects.get()
    assert (dead_letter.state, dead_letter.failures, dead_letter.exception) == (State.OPEN, 2, "KeyError")
    assert happened() == [Happened.FAILED, Happened.RETURNED, Happened.REOPENED]


def test_only_a_possibly_lost_replay_is_given_up() -> None:
    """And only after its time."""
    receive()
    be_silent(over=replay.SILENT_AFTER - timedelta(minutes=1))
    assert unanswered.reopen() == 0
    DeadLetter.objects.all().delete()
    die()
    be_silent(over=timedelta(days=9))
    assert unanswered.reopen() == 0, "a journal loses nothing"


def test_of_several_at_once_each_dead_letter_is_opened_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unanswered, "BATCH", 3)
    for number in range(40):
        receive(f"m-{number}")
    be_silent()
    opened = at_once(4, unanswered.reopen)
    assert unanswered.reopen() + sum(int(str(count)) for count in opened) == 40
    assert DeadLetterEvent.objects.filter(what=Happened.RETURNED).count() == 40
    assert not DeadLetter.objects.exclude(state=State.OPEN).exists()


@pytest.mark.parametrize("again", [False, True])
def test_what_happens_to_a_dead_letter_at_that_moment_is_what_counts(again: bool) -> None:
    """Its replay succeeds, or an operator sends it again, and the transaction is about to be committed."""
    DeadLetterQueue.add("m-1", "nowhere", {}, "x")
    be_silent()
    with transaction.atomic():
        if again:
            replay._claim(DeadLetter.objects.get().pk, actor="alice")
        else:
            record.on_resolved("m-1")
        assert at_once(1, unanswered.reopen) == [0]
    assert unanswered.reopen() == 0
    assert DeadLetter.objects.get().state == (State.REPLAYING if again else State.RESOLVED)
    assert happened() == [Happened.FAILED, Happened.REPLAYED if again else Happened.RESOLVED]


def test_beat_asks_for_it() -> None:
    assert unanswered.reopen.name in {entry["task"] for entry in CELERY_BEAT_SCHEDULE.values()}
