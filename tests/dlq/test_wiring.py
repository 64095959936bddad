"""The desk and the real journal: what becomes of a dead letter when its message's row says no, or is taken back."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import pytest
from celery.app.trace import trace_task
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client
from django.urls import reverse
from pytest_django.fixtures import Settings

import outbox
from config.celery import app
from dlq import record, replay
from dlq.message import REPLAY_HEADER, RawMessage
from dlq.models import Cause, DeadLetter, Happened, State
from dlq.queue import DeadLetterQueue
from dlq.replay import NotReplayable
from outbox import transitions
from outbox.models import OutboxMessage
from outbox.testing import drain
from tests.support import effects, retrying_tasks, tasks
from tests.support.messages import elsewhere

pytestmark = pytest.mark.django_db


def dead(**options: str) -> tuple[uuid.UUID, DeadLetter]:
    message_id = outbox.enqueue(tasks.permanently_wrong.s("a"), **options)
    drain()
    return message_id, DeadLetter.objects.get(message_id=str(message_id))


def test_a_replay_whose_dedup_key_is_taken_is_refused() -> None:
    """Another message holds the key; the dead letter stays open."""
    message_id, dead_letter = dead(dedup_key="k")
    outbox.enqueue(tasks.note.s("b"), dedup_key="k")
    with pytest.raises(NotReplayable, match="another message with its dedup key is open"):
        replay.replay(dead_letter.pk)
    dead_letter.refresh_from_db()
    assert dead_letter.state == State.OPEN
    drain()
    assert replay.replay(dead_letter.pk) == str(message_id)


@pytest.mark.parametrize("retries", [0, 1, 5])
@pytest.mark.parametrize(
    "task", [tasks.always_unavailable, retrying_tasks.retries_itself], ids=["automatic", "by itself"]
)
def test_a_replay_may_use_as_many_retries_as_the_operator_says(task: Any, retries: int) -> None:
    message_id = outbox.enqueue(task.s("a"))
    drain()
    before = effects.count("a")
    assert DeadLetterQueue.replay(task_id=str(message_id), retries=retries) == str(message_id)
    drain()
    assert effects.count("a") - before == 1 + retries
    dead_letter = DeadLetter.objects.get()
    assert (dead_letter.state, dead_letter.attempts) == (State.OPEN, 1 + retries)
    # The next replay is asked anew.
    before = effects.count("a")
    replay.replay(dead_letter.pk)
    drain()
    assert effects.count("a") - before == 1 + task.max_retries


@pytest.mark.promise(
    "P5", "the journal skips a replay's copy", "no success: nothing is resolved", celery="a success"
)
@pytest.mark.parametrize("unset", ["DLQ_JOURNAL", "OUTBOX_DEAD_LETTERS", None])
def test_a_copy_that_the_journal_skips_resolves_no_dead_letter(settings: Settings, unset: str | None) -> None:
    """However dlq/ is wired.

    What a desk that knows no journal sends again is a message that the journal has settled long ago.
    """
    message_id = str(outbox.enqueue(tasks.note.s("a")))
    drain()
    if unset:
        setattr(settings, unset, None)

    headers = {"id": message_id, "outbox": {"generation": 1}}
    raw = RawMessage(b'[["a"], {}, null]', "application/json", "utf-8", headers, {}, {"routing_key": "low"})
    dead_letter = record.record_raw(
        message_key=message_id, raw=raw, cause=Cause.FAILED, error="no", task=tasks.note.name
    )
    DeadLetter.objects.update(state=State.REPLAYING, replayed_at=dead_letter.failed_at)

    request = {**headers, REPLAY_HEADER: message_id, "delivery_info": {}, "called_directly": False}
    trace_task(tasks.note, message_id, ["a"], {}, request=request, app=app)

    dead_letter.refresh_from_db()
    assert (dead_letter.state, effects.count("a")) == (State.REPLAYING, 1)


def test_a_replay_that_is_cancelled_before_it_runs_closes_its_dead_letter() -> None:
    message_id, dead_letter = dead()
    replay.replay(dead_letter.pk)
    root = Client()
    root.force_login(User.objects.create_superuser("root"))
    row = OutboxMessage.objects.get(message_id=message_id)
    data = {"action": "cancel_selected", "_selected_action": [row.pk]}
    root.post(reverse("admin:outbox_outboxmessage_changelist"), data)
    dead_letter.refresh_from_db()
    assert dead_letter.state == State.DISCARDED
    assert dead_letter.discard_reason == "its message was cancelled: by root"
    assert dead_letter.events.latest("id").what == Happened.DISCARDED


def test_a_discard_after_a_replay_is_reported_once() -> None:
    """With its own reason."""
    _, dead_letter = dead()
    replay.replay(dead_letter.pk)
    drain()
    replay.discard(dead_letter.pk, reason="customer left")
    dead_letter.refresh_from_db()
    assert dead_letter.discard_reason == "customer left"
    assert dead_letter.events.filter(what=Happened.DISCARDED).count() == 1


def test_a_message_that_was_never_replayed_is_cancelled_without_a_dead_letter() -> None:
    message_id = outbox.enqueue(tasks.note.s("a"))
    assert transitions.cancel(message_id, reason="not wanted")
    assert not DeadLetter.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("clean")
def test_a_dead_letter_is_not_discarded_while_somebody_holds_its_message() -> None:
    """Its group would wait for ever behind a message that is dead and of which no dead letter is open."""
    message_id, dead_letter = dead()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            OutboxMessage.objects.select_for_update().get(message_id=message_id)
            held.set()
            assert done.wait(20)

    with elsewhere(hold):
        assert held.wait(20)
        with pytest.raises(replay.NotDiscardable, match="another transaction is changing it"):
            replay.discard(dead_letter.pk, reason="of no use")
        done.set()
    dead_letter.refresh_from_db()
    assert dead_letter.state == State.OPEN
    replay.discard(dead_letter.pk, reason="of no use")
    assert OutboxMessage.objects.get(message_id=message_id).status == "cancelled"
