"""Replays through real workers: "sent" is not "succeeded"."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from config.celery import app
from dlq import record, replay
from dlq.message import REPLAY_HEADER, RawMessage
from dlq.models import Cause, DeadLetter, DeadLetterEvent, Happened, State
from dlq.queue import DeadLetterQueue
from dlq.replay import NotReplayable
from outbox.models import OutboxMessage
from outbox.testing import drain
from tests.support import effects, rawpublish
from tests.support.brokers import on_rabbitmq_in_proof
from tests.support.processes import Process, await_

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tidy"), on_rabbitmq_in_proof]
TASKS = "tests.support.tasks."


def dead_letter_of(message_id: str) -> DeadLetter:
    await_(lambda: DeadLetter.objects.filter(message_id=message_id).exists(), "the dead letter")
    return DeadLetter.objects.get(message_id=message_id)


def story(dead_letter: DeadLetter) -> list[str]:
    return list(DeadLetterEvent.objects.filter(dead_letter=dead_letter).values_list("what", flat=True))


def test_the_success_of_an_outside_messages_replay_resolves_its_dead_letter(live: Process) -> None:
    dead_letter = dead_letter_of(rawpublish.send(f"{TASKS}wrong_until_told", "mend"))
    assert dead_letter.message is not None
    effects.add("mend-told")
    assert replay.replay(dead_letter.pk, actor="alice") == dead_letter.message_id
    await_(lambda: DeadLetter.objects.filter(state=State.RESOLVED).exists(), "the dead letter is resolved")
    assert story(dead_letter) == [Happened.FAILED, Happened.REPLAYED, Happened.RESOLVED]
    assert effects.count("mend-done") == 1


def test_an_outside_message_that_fails_again_reopens_its_dead_letter(
    live: Process,
) -> None:
    """The dead letter keeps the original message."""
    dead_letter = dead_letter_of(rawpublish.send(f"{TASKS}wrong_until_told", "stays"))
    original = dead_letter.message
    for failures in (2, 3):
        replay.replay(dead_letter.pk)
        await_(
            lambda failures=failures: DeadLetter.objects.filter(failures=failures).exists(), "it failed again"
        )
        dead_letter.refresh_from_db()
        assert dead_letter.state == State.OPEN
    assert DeadLetter.objects.count() == 1
    assert dead_letter.message == original
    assert story(dead_letter) == [Happened.FAILED] + 2 * [Happened.REPLAYED, Happened.REOPENED]


def test_an_edited_copy_of_an_outside_message_ends_by_itself(
    live: Process,
) -> None:
    """Its dead letter is one of its own, with a link to the original."""
    dead_letter = dead_letter_of(rawpublish.send(f"{TASKS}wrong_until_told", "misspelt"))
    first = DeadLetterQueue.edit(dead_letter.message_id, {"name": "misspelt too"})
    copy = dead_letter_of(first)
    assert (copy.args, copy.origin) == (["misspelt too"], dead_letter.message_id)
    await_(lambda: DeadLetter.objects.filter(state=State.RESOLVED).exists(), "the first is resolved")
    assert DeadLetter.objects.get(state=State.RESOLVED) == dead_letter
    effects.add("mended-told")
    DeadLetterQueue.edit(first, {"name": "mended"})
    await_(lambda: not DeadLetter.objects.exclude(state=State.RESOLVED).exists(), "the copy's copy succeeded")
    assert effects.count("mended-done") == 1
    assert DeadLetter.objects.count() == 2


@pytest.mark.parametrize("message_id", ["6f1c8f0e-0d6a-4c9b-8f3e-2b7a51d0c3aa", "nightly-report"])
def test_a_replay_taken_over_by_the_outbox_resolves_the_dead_letter(live: Process, message_id: str) -> None:
    """When it ends."""
    headers = {"id": message_id, "retries": 2}
    dead_letter = dead_letter_of(rawpublish.send(f"{TASKS}unavailable_until_told", "taken", _headers=headers))
    replay.replay(dead_letter.pk)
    await_(
        lambda: OutboxMessage.objects.filter(task=f"{TASKS}unavailable_until_told").exists(), "it is a row"
    )
    dead_letter.refresh_from_db()
    assert dead_letter.state == State.REPLAYING
    effects.add("taken-told")
    drain()
    dead_letter.refresh_from_db()
    assert dead_letter.state == State.RESOLVED
    assert effects.count("taken-done") == 1


@pytest.mark.parametrize("message_id", ["6f1c8f0e-0d6a-4c9b-8f3e-2b7a51d0c3aa", "nightly-report"])
def test_a_replay_that_dies_in_the_outbox_has_one_dead_letter(live: Process, message_id: str) -> None:
    """One that is open; the outbox had taken the replay over."""
    headers = {"id": message_id, "retries": 2}
    dead_letter = dead_letter_of(rawpublish.send(f"{TASKS}unavailable_until_told", "dies", _headers=headers))
    replay.replay(dead_letter.pk)
    await_(
        lambda: OutboxMessage.objects.filter(task=f"{TASKS}unavailable_until_told").exists(), "it is a row"
    )
    drain()
    open_dead_letter = DeadLetter.objects.get(closed_at=None)
    assert open_dead_letter.state == State.OPEN
    # From now on the journal replays it.
    effects.add("dies-told")
    replay.replay(open_dead_letter.pk)
    drain()
    assert not DeadLetter.objects.filter(closed_at=None).exists()
    assert effects.count("dies-done") == 1


@pytest.mark.parametrize("args", [(["old"], {"expires": "2020-01-01T00:00:00+00:00"}), (None, {})])
def test_a_message_of_protocol_1_is_sent_again_as_a_replay(live: Process, args: Any) -> None:
    """Its fields are in the body: its expiry, and where the worker looks for the dead letter's id."""
    positional, extra = args
    message_id = str(uuid.uuid4())
    call = {"args": positional} if positional else {"kwargs": {"name": "old"}}
    body = {"task": f"{TASKS}wrong_until_told", "id": message_id, **call, **extra}
    rawpublish.publish(json.dumps(body), {})
    dead_letter = dead_letter_of(message_id)
    effects.add("old-told")
    replay.replay(dead_letter.pk)
    await_(lambda: DeadLetter.objects.filter(state=State.RESOLVED).exists(), "the dead letter is resolved")
    assert effects.count("old-done") == 1


def test_a_success_after_the_replay_was_given_up_resolves_it(live: Process) -> None:
    dead_letter = dead_letter_of(rawpublish.send(f"{TASKS}wrong_until_told", "late"))
    effects.add("late-told")
    headers = {"id": dead_letter.message_id, REPLAY_HEADER: dead_letter.message_id}
    rawpublish.send(f"{TASKS}wrong_until_told", "late", _headers=headers)
    await_(lambda: DeadLetter.objects.filter(state=State.RESOLVED).exists(), "the dead letter is resolved")


def test_an_expired_message_is_sent_again_without_its_expiry(live: Process) -> None:
    headers = {"expires": "2020-01-01T00:00:00+00:00"}
    dead_letter = dead_letter_of(rawpublish.send(f"{TASKS}note", "late", _headers=headers))
    replay.replay(dead_letter.pk)
    await_(lambda: effects.count("late") == 1, "it runs")
    await_(lambda: DeadLetter.objects.filter(state=State.RESOLVED).exists(), "the dead letter is resolved")


def test_a_revoked_message_runs_when_an_operator_sends_it_again(live: Process) -> None:
    message_id = str(uuid.uuid4())
    app.control.revoke(message_id)
    await_(lambda: app.control.ping(timeout=0.5), "the worker knows of the revocation")
    dead_letter = dead_letter_of(rawpublish.send(f"{TASKS}note", "revoked", _headers={"id": message_id}))
    replay.replay(dead_letter.pk)
    await_(lambda: effects.count("revoked") == 1, "it runs")


def test_a_replay_may_kill_its_process_as_often_as_before(live: Process) -> None:
    dead_letter = dead_letter_of(rawpublish.send(f"{TASKS}exits", "again"))
    assert effects.count("again") == 3
    replay.replay(dead_letter.pk)
    await_(lambda: DeadLetter.objects.filter(failures=2).exists(), "it failed again", 60)
    assert effects.count("again") == 6


def test_a_message_only_an_older_deployment_refused_is_sent_by_force(live: Process) -> None:
    dead_letter = dead_letter_of(rawpublish.send(f"{TASKS}wrong_until_told", "read"))
    DeadLetter.objects.update(cause=Cause.UNDECODABLE)
    effects.add("read-told")
    with pytest.raises(CommandError, match="1 of 1 were not sent again"):
        call_command("dlq", "replay", dead_letter.message_id)
    call_command("dlq", "replay", dead_letter.message_id, "--force")
    await_(lambda: DeadLetter.objects.filter(state=State.RESOLVED).exists(), "the dead letter is resolved")
    assert effects.count("read-done") == 1


def test_a_message_its_journal_has_forgotten_runs_when_replayed(live: Process) -> None:
    headers = rawpublish.task_headers(f"{TASKS}note", outbox={"generation": 1})
    raw = RawMessage(
        b'[["forgotten"], {}, null]', "application/json", "utf-8", headers, {}, {"routing_key": "default"}
    )
    dead_letter = record.record_raw(
        message_key=headers["id"], raw=raw, cause=Cause.FAILED, error="no", task=f"{TASKS}note"
    )
    replay.replay(dead_letter.pk)
    await_(lambda: DeadLetter.objects.filter(state=State.RESOLVED).exists(), "the dead letter is resolved")
    assert effects.count("forgotten") == 1


def test_a_malformed_message_is_not_sent_again(live: Process) -> None:
    rawpublish.publish("5", rawpublish.task_headers(f"{TASKS}note"))
    await_(lambda: DeadLetter.objects.exists(), "the dead letter")
    with pytest.raises(NotReplayable, match="malformed: sent again as it is, it can only fail again"):
        replay.replay(DeadLetter.objects.get().pk)
    assert DeadLetter.objects.get().state == State.OPEN
