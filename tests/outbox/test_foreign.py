"""Who can write to the broker cannot run what they like: a row's own content runs, and without a row nothing does."""

from __future__ import annotations

import json
import uuid

import pytest

import outbox
from dlq import replay
from dlq.models import DeadLetter, State
from outbox.models import OutboxMessage, Skipped
from outbox.relay import queries
from outbox.testing import wait_until_settled
from tests.support import effects, rawpublish, tasks
from tests.support.brokers import on_both_brokers
from tests.support.processes import await_, relay, worker

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clean")]


def forged(message_id: uuid.UUID, task: str, *args: str) -> None:
    headers = rawpublish.task_headers(task, id=str(message_id), outbox={"generation": 1, "publish": 1})
    rawpublish.publish(json.dumps([args, {}, None]), headers)


@pytest.mark.promise(
    "P5",
    "a copy of a message has another task or other arguments than its row",
    "it runs what the row says, or is skipped and counted",
    celery="runs it",
)
@on_both_brokers
def test_a_forged_copy_runs_what_its_row_says_or_nothing() -> None:
    """Its id and generation can be read in the broker; its task and arguments are the writer's."""
    ours = [outbox.enqueue(task.s("ours")) for task in (tasks.note, tasks.note_once)]
    other = outbox.enqueue(tasks.note.s("other"))
    for message in queries.mark("default", 10):
        # The relay has marked them, and the forged copy is the first to arrive.
        assert message.publish_count == 1

    with worker(concurrency=1, env={"OUTBOX_MARGIN": "1"}):
        forged(ours[0], "tests.support.tasks.note", "theirs")
        forged(ours[1], "tests.support.tasks.note_once", "theirs")
        forged(other, "tests.support.tasks.note_once", "theirs")
        forged(other, "no.such.task", "theirs")

        # Of a message that is not there, with what is to follow it, and past the claim.
        following = {"task": "tests.support.tasks.note", "args": ["next"], "kwargs": {}, "options": {}}
        wire = {"outbox": {"generation": 1, "publish": "x"}, "outbox_begun": True, "timelimit": [0.01, None]}
        gone = rawpublish.task_headers("tests.support.tasks.note", **wire)
        rawpublish.publish(
            json.dumps([["theirs"], {}, {"callbacks": [following], "chain": [following]}]), gone
        )

        await_(
            lambda: Skipped.objects.filter(reason="mismatch", count=1).exists(), "the other task is refused"
        )
        with relay(env={"OUTBOX_MARGIN": "1"}):
            wait_until_settled(30)

    assert sorted(effects.names()) == ["other", "ours", "ours"]
    assert {row.status for row in OutboxMessage.objects.all()} == {"done"}
    assert not DeadLetter.objects.exists()


@pytest.mark.promise(
    "P5",
    "a message has no row, and `OUTBOX_FOREIGN_TASKS` does not name its task",
    "a dead letter, and nothing runs",
    celery="runs it",
)
@on_both_brokers
def test_a_message_without_a_row_becomes_a_dead_letter() -> None:
    """Its task is not in `OUTBOX_FOREIGN_TASKS`; an operator may replay it."""
    following = {"task": "tests.support.tasks.note", "args": ["next"], "kwargs": {}, "options": {}}
    mail, headers = "tests.support.tasks.not_for_outsiders", rawpublish.task_headers

    with worker(concurrency=1), relay():
        message_id = rawpublish.send(mail, "theirs")
        forging = rawpublish.send(mail, "forging", _headers={"dlq-replay": message_id})
        mapped = rawpublish.send("celery.map", following, [["mapped"]])
        marks = {"outbox_begun": True, "called_directly": True}
        begun = rawpublish.send(mail, "begun", _headers=marks)
        canvas = headers(mail)
        rawpublish.publish(
            json.dumps([["canvas"], {}, {"errbacks": [following], "chain": [following]}]), canvas
        )

        sent = {message_id, forging, mapped, begun, canvas["id"]}
        await_(lambda: DeadLetter.objects.filter(state=State.OPEN).count() == 5, "the dead letters")
        assert {dead_letter.message_id for dead_letter in DeadLetter.objects.all()} == sent
        assert {dead_letter.exception for dead_letter in DeadLetter.objects.all()} == {
            "outbox.errors.ForeignMessage"
        }
        assert effects.names() == []

        assert replay.replay(DeadLetter.objects.get(message_id=message_id).pk) == message_id
        wait_until_settled(30)

    assert effects.names() == ["theirs"]
    assert OutboxMessage.objects.get().status == "done"
    assert DeadLetter.objects.get(message_id=message_id).state == State.RESOLVED
    assert DeadLetter.objects.filter(state=State.OPEN).count() == 4
