"""Sending a message again: once, as the same message, until it succeeds or is given up for a reason."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings
from pytest_mock import MockerFixture

from dlq import record, replay
from dlq.message import REPLAY_HEADER, RawMessage
from dlq.models import Cause, DeadLetter, DeadLetterEvent, Happened, State
from dlq.queue import DeadLetterQueue
from dlq.replay import NotDiscardable, NotReplayable
from dlq.resend import renewed
from outbox import dlq_hooks
from tests.dlq.concurrency import at_once
from tests.dlq.preflight import obstacle
from tests.dlq.test_record import die, receive

sent: list[str] = []
released: list[str] = []


def publisher(message_id: str, *, retries: int | None) -> str:
    """A journal that has every message."""
    sent.append(message_id)
    return message_id


def empty_publisher(message_id: str, *, retries: int | None) -> None:
    """A journal that has none."""


def discarder(message_id: str) -> None:
    released.append(message_id)


@pytest.fixture(autouse=True)
def journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dlq_hooks, "republish", publisher)
    monkeypatch.setattr(dlq_hooks, "discard", discarder)
    sent.clear()
    released.clear()


@pytest.mark.django_db
def test_a_journalled_dead_letter_keeps_its_id_when_replayed() -> None:
    """Its journal sends it."""
    dead_letter = die()
    assert replay.replay(dead_letter.pk, actor="alice") == "m-1"
    dead_letter.refresh_from_db()
    assert sent == ["m-1"]
    assert dead_letter.state == State.REPLAYING
    assert dead_letter.replayed_at is not None
    event = DeadLetterEvent.objects.get(what=Happened.REPLAYED)
    assert (event.actor, event.generation) == ("alice", 1)


@pytest.mark.django_db
def test_a_journal_without_the_message_leaves_the_dead_letter_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dlq_hooks, "republish", empty_publisher)
    dead_letter = die()
    with pytest.raises(NotReplayable, match="m-1: its journal no longer has a dead message"):
        replay.replay(dead_letter.pk)
    dead_letter.refresh_from_db()
    assert dead_letter.state == State.OPEN
    assert DeadLetterEvent.objects.filter(what=Happened.REPLAYED).count() == 0


@pytest.mark.django_db
def test_without_its_journal_a_dead_letter_stays_open(
    settings: Settings,
) -> None:
    """It is neither replayed nor discarded."""
    settings.DLQ_JOURNAL = None
    dead_letter = die()
    with pytest.raises(NotReplayable, match="m-1 has a journal, and DLQ_JOURNAL does not name it"):
        replay.replay(dead_letter.pk)
    with pytest.raises(NotDiscardable, match="m-1 has a journal, and DLQ_JOURNAL does not name it"):
        replay.discard(dead_letter.pk, reason="because")
    dead_letter.refresh_from_db()
    assert dead_letter.state == State.OPEN


@pytest.mark.django_db
@pytest.mark.parametrize("state", [State.REPLAYING, State.RESOLVED, State.DISCARDED])
def test_only_an_open_dead_letter_is_replayed_or_discarded(state: str) -> None:
    dead_letter = die()
    closed_at = dead_letter.failed_at if state != State.REPLAYING else None
    DeadLetter.objects.update(
        state=state, replayed_at=dead_letter.failed_at, closed_at=closed_at, discard_reason="r"
    )
    with pytest.raises(NotReplayable, match=f"m-1 is {state}, not open"):
        replay.replay(dead_letter.pk)
    with pytest.raises(NotDiscardable, match=f"m-1 is {state}, not open"):
        replay.discard(dead_letter.pk, reason="because")
    assert sent == released == []


@pytest.mark.django_db
def test_the_preflight_says_what_a_replay_would_say() -> None:
    assert obstacle(die()) == ""
    assert "it can only fail again" in obstacle(receive("bad", cause=Cause.MALFORMED))
    assert "no task 'renamed' is registered" in obstacle(receive("gone", task="renamed"))
    assert obstacle(receive("raw", task="tests.support.tasks.note")) == ""
    DeadLetter.objects.filter(message_id="raw").update(queue="producers-own")
    stray = DeadLetter.objects.get(message_id="raw")
    assert "the queue 'producers-own' is not a queue of this application" in obstacle(stray)
    with pytest.raises(NotReplayable, match="producers-own"):
        replay.replay(stray.pk)
    closed = die("closed")
    replay.discard(closed.pk, reason="r")
    closed.refresh_from_db()
    assert obstacle(closed) == "it is discarded"


@pytest.mark.django_db
def test_what_the_broker_counted_and_what_has_expired_is_not_sent_again() -> None:
    """RabbitMQ's count would go on where it ended: a limit reached once would be reached at every replay."""
    old = {"id": "m-1", "x-delivery-count": 20, "redelivered": True, "expires": "2020-01-01T00:00:00+00:00"}
    raw = RawMessage(b"[[1], {}, null]", "application/json", "utf-8", {**old, "tenant": "a"}, {}, {})
    dead_letter = record.record_raw(
        message_key="m-1", raw=raw, cause=Cause.FAILED, error="no", task="tests.support.tasks.note"
    )
    sent_again = renewed(raw.headers, dead_letter, 3)
    assert set(sent_again) == {"id", "tenant", "retries", REPLAY_HEADER}


@pytest.mark.django_db
@pytest.mark.parametrize(("retries", "spent"), [(None, 0), (2, 0), (1, 1), (0, 2), (9, 0)])
def test_a_replay_without_a_journal_has_the_wanted_retries_left(retries: int | None, spent: int) -> None:
    """The other retries count as spent."""
    dead_letter = receive("m-1", task="tests.support.tasks.always_unavailable")
    assert dead_letter.message is not None
    assert renewed(dead_letter.message.headers, dead_letter, retries)["retries"] == spent


@pytest.mark.django_db
def test_a_number_of_retries_below_none_is_refused_and_nothing_is_sent() -> None:
    dead_letter = die()
    with pytest.raises(ValueError, match="retries must be at least 0, not -1"):
        replay.replay(dead_letter.pk, retries=-1)
    assert sent == []


@pytest.mark.django_db
def test_a_dead_letter_that_is_gone_is_said_to_be_gone() -> None:
    with pytest.raises(NotReplayable, match="there is no dead letter 0"):
        replay.replay(0)
    with pytest.raises(NotDiscardable, match="there is no dead letter 0"):
        replay.discard(0, reason="r")


@pytest.mark.django_db
def test_a_discard_releases_the_journals_message_and_keeps_who_and_why() -> None:
    dead_letter = die()
    replay.discard(dead_letter.pk, reason="  paid by hand ", actor="alice")
    dead_letter.refresh_from_db()
    assert released == ["m-1"]
    assert (dead_letter.state, dead_letter.discard_reason) == (State.DISCARDED, "paid by hand")
    event = DeadLetterEvent.objects.get(what=Happened.DISCARDED)
    assert (event.actor, event.note) == ("alice", "paid by hand")


@pytest.mark.django_db
def test_an_unanswered_replay_without_a_journal_can_be_repeated(
    mocker: MockerFixture,
) -> None:
    process = mocker.patch("orders.services.OrderService.process")
    DeadLetterQueue.add(job_id="a", queue="orders", payload={}, error="x")
    long_ago = timezone.now() - replay.SILENT_AFTER - timedelta(minutes=1)
    DeadLetter.objects.update(state=State.REPLAYING, replayed_at=timezone.now())
    assert obstacle(DeadLetter.objects.get()) == "it is replaying"
    DeadLetter.objects.update(state=State.REPLAYING, replayed_at=long_ago)
    assert obstacle(DeadLetter.objects.get()) == ""
    DeadLetterQueue.replay("a")
    process.assert_called_once()


@pytest.mark.django_db
def test_a_journalled_replay_never_counts_as_silent() -> None:
    dead_letter = die()
    DeadLetter.objects.update(state=State.REPLAYING, replayed_at=timezone.now() - timedelta(days=9))
    with pytest.raises(NotReplayable, match="is replaying"):
        replay.replay(dead_letter.pk)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("journalled", [True, False])
def test_operators_who_replay_at_once_replay_once(journalled: bool, mocker: MockerFixture) -> None:
    process = mocker.patch("orders.services.OrderService.process")
    if journalled:
        dead_letter = die()
    else:
        DeadLetterQueue.add(job_id="m-1", queue="orders", payload={"order_id": 1}, error="x")
        dead_letter = DeadLetter.objects.get()
    outcomes = at_once(4, lambda: replay.replay(dead_letter.pk))
    assert len([outcome for outcome in outcomes if outcome == "m-1"]) == 1
    assert len([outcome for outcome in outcomes if isinstance(outcome, NotReplayable)]) == 3
    assert len(sent) + process.call_count == 1
    assert DeadLetterEvent.objects.filter(what=Happened.REPLAYED).count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_a_replay_and_a_discard_at_once_one_is_done() -> None:
    dead_letter = die()
    outcomes = at_once(
        2, lambda: replay.replay(dead_letter.pk), lambda: replay.discard(dead_letter.pk, reason="r")
    )
    assert len([outcome for outcome in outcomes if isinstance(outcome, Exception)]) == 1
    assert len(sent) + len(released) == 1
