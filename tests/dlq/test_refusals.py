"""Messages that are refused for what they are, by a worker that has other work to do."""

from __future__ import annotations

import json

import pytest

from dlq.models import DeadLetter
from tests.dlq.corpus import TASK
from tests.dlq.preflight import obstacle
from tests.support import effects, rawpublish
from tests.support.brokers import on_rabbitmq_in_proof
from tests.support.pool import assert_every_process_works
from tests.support.processes import Process, await_

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tidy"), on_rabbitmq_in_proof]


@pytest.mark.promise("P5", "the task is unknown", "a dead letter with what a replay needs", celery="drops it")
def test_a_renamed_tasks_message_keeps_what_a_replay_needs(live: Process) -> None:
    message_id = rawpublish.send("tests.support.tasks.renamed", "a", password="hunter2")

    await_(lambda: DeadLetter.objects.filter(message_id=message_id).exists(), "the dead letter")

    dead_letter = DeadLetter.objects.get()
    assert (dead_letter.task, dead_letter.args, dead_letter.kwargs) == (
        "tests.support.tasks.renamed",
        ["a"],
        {"password": "hunter2"},
    )


def test_two_different_messages_with_one_id_are_two_dead_letters(live: Process) -> None:
    headers = rawpublish.task_headers("no.such.task")
    for name in ("first", "second"):
        rawpublish.publish(json.dumps([[name], {}, None]), headers)
    await_(lambda: DeadLetter.objects.count() == 2, "both dead letters")
    assert sorted(dead_letter.args[0] for dead_letter in DeadLetter.objects.all()) == ["first", "second"]


@pytest.mark.promise("P5", "the message has expired", "a dead letter", celery="acknowledges it")
def test_an_expired_message_is_recorded_and_does_not_run(live: Process) -> None:
    message_id = rawpublish.send(TASK, "late", _headers={"expires": "2020-01-01T00:00:00+00:00"})

    await_(lambda: DeadLetter.objects.filter(message_id=message_id).exists(), "the dead letter")

    assert_every_process_works(live)
    assert DeadLetter.objects.get().cause == "expired"
    assert effects.count("late") == 0


def test_a_handler_that_raises_neither_ends_the_worker_nor_leaks_slots(live: Process) -> None:
    """Whatever a later Celery does with one message; KeyError is what kombu takes for a lost connection."""
    for _ in range(4):
        rawpublish.send("tests.support.tasks.breaks_the_handler")
    await_(lambda: DeadLetter.objects.count() == 4, "the dead letters")
    assert_every_process_works(live)
    assert {dead_letter.exception for dead_letter in DeadLetter.objects.all()} == {"KeyError"}
    assert {dead_letter.cause for dead_letter in DeadLetter.objects.all()} == {"failed"}
    assert {obstacle(dead_letter) for dead_letter in DeadLetter.objects.all()} == {""}, (
        "the messages are good"
    )


@pytest.mark.promise(
    "P5",
    "a message of an outside producer has callbacks, a chain or a chord in it",
    "a dead letter before its effect",
    celery="runs it, and what should follow is lost with the result",
)
@pytest.mark.parametrize("canvas", ["callbacks", "errbacks", "chain", "chord"])
def test_an_outside_message_with_a_canvas_is_refused_before_its_effect(live: Process, canvas: str) -> None:
    """It becomes a dead letter.

    Run, it would have its effect, and what is to follow would be lost; a chord's without a word.
    """
    following = {"task": TASK, "args": ["next"], "kwargs": {}, "options": {}, "immutable": True}
    headers = rawpublish.task_headers(TASK, group="some-group")
    embed = {canvas: following if canvas == "chord" else [following]}

    rawpublish.publish(json.dumps([["first"], {}, embed]), headers)
    await_(lambda: DeadLetter.objects.exists(), "the dead letter")
    assert_every_process_works(live)

    dead_letter = DeadLetter.objects.get()
    assert (dead_letter.message_id, dead_letter.args) == (headers["id"], ["first"])
    assert f"the message carries {canvas}, which would never run here" in dead_letter.error
    assert dead_letter.message is not None
    assert json.loads(dead_letter.message.body)[2] == embed
    assert effects.names("first") == effects.names("next") == []


def test_a_message_of_a_group_without_a_chord_runs_as_every_other(live: Process) -> None:
    rawpublish.send(TASK, "member", _headers={"group": "some-group", "group_index": 0})
    await_(lambda: effects.count("member") == 1, "it runs")
    assert_every_process_works(live)
    assert not DeadLetter.objects.exists()
