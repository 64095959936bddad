"""Messages that have a journal: it and the dead-letter desk tell one story about each."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from pytest_django import DjangoDbBlocker

import outbox
from config.celery import app
from dlq import replay
from dlq.masking import MASK
from dlq.models import DeadLetter, DeadLetterEvent, Happened, State
from outbox.models import OutboxMessage
from tests.support import effects, rawpublish, tasks
from tests.support.brokers import on_rabbitmq_in_proof
from tests.support.pool import assert_every_process_works
from tests.support.processes import Process, await_, relay

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tidy", "relaying"), on_rabbitmq_in_proof]


@pytest.fixture(scope="module")
def relaying(live: Process, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """A relay beside the worker."""
    with django_db_blocker.unblock(), relay():
        yield


def the_dead_letter(message_id: str, within_s: float = 30.0) -> DeadLetter:
    await_(lambda: DeadLetter.objects.filter(state=State.OPEN).exists(), "an open dead letter", within_s)
    dead_letter = DeadLetter.objects.get()
    assert dead_letter.message_id == message_id
    row = OutboxMessage.objects.get(message_id=message_id)
    assert (row.status, row.generation) == ("dead", dead_letter.generation)
    return dead_letter


def story() -> list[str]:
    return list(DeadLetterEvent.objects.values_list("what", flat=True))


def test_a_hard_time_limit_is_one_dead_letter_and_a_dead_row(live: Process) -> None:
    dead_letter = the_dead_letter(tasks.over_the_hard_limit.delay("over").id)
    assert dead_letter.cause == "timeout"
    assert story() == [Happened.FAILED]
    assert dead_letter.message is not None, "the message is kept as it was received"


def test_a_message_that_kills_its_process_ends_as_dead_letter(
    live: Process,
) -> None:
    """When its deliveries are spent."""
    dead_letter = the_dead_letter(tasks.kills_its_process.delay("poison").id, within_s=60)
    assert dead_letter.cause == "lost"
    assert effects.count("poison") == tasks.kills_its_process.max_deliveries
    assert story() == [Happened.FAILED]


def test_memory_error_is_one_dead_letter(live: Process) -> None:
    dead_letter = the_dead_letter(tasks.out_of_memory.delay("oom").id)
    assert story() == [Happened.FAILED]
    assert "MemoryError" in dead_letter.traceback
    assert live.alive()


def test_a_task_unknown_for_an_hour_is_one_dead_letter(live: Process) -> None:
    """No worker knew the task; the row of the message is dead."""
    message_id = tasks.note.apply_async(("a",), countdown=3600).id
    row = OutboxMessage.objects.filter(message_id=message_id)
    refused = {"error": "unknown here", "skewed_since": (datetime.now(UTC) - timedelta(hours=1)).isoformat()}
    row.update(task="tests.support.tasks.renamed", status="pending", errors=[refused])
    dead_letter = the_dead_letter(message_id)
    assert dead_letter.cause == "unknown task"
    assert dead_letter.args == ["a"]
    assert story() == [Happened.FAILED]


@pytest.mark.described("a dead letter can be replayed when its cause is mended, and is then closed")
def test_a_replay_sends_the_same_message(
    live: Process,
) -> None:
    """Its failure reopens the dead letter, and its success resolves it."""
    message_id = tasks.wrong_until_told.delay("mend").id
    dead_letter = the_dead_letter(message_id)
    assert replay.replay(dead_letter.pk) == message_id
    await_(lambda: DeadLetter.objects.filter(failures=2).exists(), "it failed again")
    dead_letter = the_dead_letter(message_id)
    effects.add("mend-told")
    replay.replay(dead_letter.pk)
    await_(lambda: DeadLetter.objects.filter(state=State.RESOLVED).exists(), "the dead letter is resolved")
    assert story() == [
        Happened.FAILED,
        Happened.REPLAYED,
        Happened.REOPENED,
        Happened.REPLAYED,
        Happened.RESOLVED,
    ]
    assert OutboxMessage.objects.get(message_id=message_id).status == "done"


def test_a_replay_uses_as_many_retries_as_the_operator_says(live: Process) -> None:
    message_id = tasks.wrong_until_told.delay("once").id
    dead_letter = the_dead_letter(message_id)
    OutboxMessage.objects.update(task="tests.support.tasks.always_unavailable")
    replay.replay(dead_letter.pk, retries=1)
    await_(lambda: DeadLetter.objects.filter(failures=2).exists(), "it failed again")
    dead_letter = the_dead_letter(message_id)
    assert dead_letter.attempts == effects.count("once") == 2


@pytest.mark.promise(
    "P5",
    "a message that has a row is revoked",
    "a dead letter with the cause `revoked`",
    celery="acknowledges it",
)
def test_a_revoked_message_is_a_dead_letter_that_says_so(live: Process) -> None:
    message_id = str(uuid.uuid4())
    app.control.revoke(message_id)
    await_(lambda: app.control.ping(timeout=0.5), "the worker knows of the revocation")
    tasks.note.apply_async(("revoked",), task_id=message_id)
    dead_letter = the_dead_letter(message_id)
    assert (dead_letter.cause, dead_letter.exception) == ("revoked", "dlq.worker.request.Revoked")


@pytest.mark.described("the log of a failure says which job, with which arguments, and why")
def test_each_failed_attempt_logs_its_call_without_secrets(
    live: Process,
) -> None:
    secret = "Qx7hunter2hunter2"
    task = tasks.is_refused.s(999, secret, note="x").set(correlation_id="c-999")
    message_id = str(outbox.enqueue(task))
    dead_letter = the_dead_letter(message_id)
    assert dead_letter.call == f"is_refused(order_id=999, pass_phrase_of={MASK}, note='x')"
    assert dead_letter.about == ["order_id=999", "999", "note=x", "x"]
    log = live.output()
    said = [line.partition(": ")[2] for line in log.splitlines() if "tests.support.tasks.is_refused(" in line]
    call = f"tests.support.tasks.is_refused(order_id=999, pass_phrase_of={MASK}, note='x') {message_id}"
    error = f"ConnectionError: refused: password={MASK} (correlation c-999)"
    assert len(said) == 2
    took = r" \([\d.]+ s\) "
    first, last = re.escape(f"{call} attempt 1 of 2") + took, re.escape(f"{call} attempt 2 of 2") + took
    assert re.fullmatch(first + r"failed, again in [\d.]+ s: " + re.escape(error), said[0])
    assert re.fullmatch(last + re.escape(f"failed for good: {error}"), said[1])
    assert secret not in log
    assert secret in json.dumps(OutboxMessage.objects.get().args), "the mask is no part of the message"


def test_an_ending_seen_by_the_parent_is_logged_with_its_call(live: Process) -> None:
    message_id = str(outbox.enqueue(tasks.over_the_hard_limit.s("over").set(correlation_id="c-1")))
    the_dead_letter(message_id)
    line = (
        f"tests.support.tasks.over_the_hard_limit(name='over') {message_id} generation 1: TimeLimitExceeded: "
        "TimeLimitExceeded(1,) (correlation c-1)"
    )
    await_(lambda: line in live.output(), "the line")
    refused = rawpublish.send("no.such.task", 999, "password=hunter2", _headers={"correlation_id": "c-2"})
    await_(lambda: DeadLetter.objects.filter(message_id=refused).exists(), "the second dead letter")
    line = f"no.such.task(999, 'password={MASK}') {refused} attempt 1: NotRegistered: 'no.such.task' (correlation c-2)"
    await_(lambda: line in live.output(), "the second line")


def test_a_discarded_dead_letter_releases_the_group_that_waits_behind_it(live: Process) -> None:
    message_id = str(tasks.ordered.apply_async(("head", True), ordering_key="group"))
    tasks.ordered.apply_async(("next",), ordering_key="group")
    dead_letter = the_dead_letter(message_id)
    assert effects.count("next") == 0
    replay.discard(dead_letter.pk, reason="the customer left", actor="alice")
    await_(lambda: effects.count("next") == 1, "the group moves on")
    assert OutboxMessage.objects.get(message_id=message_id).status == "cancelled"


def test_outside_messages_with_an_eta_run_once_and_not_early(
    live: Process,
) -> None:
    """More of them than the worker may hold at once; what comes meanwhile runs meanwhile."""
    eta = datetime.now(UTC) + timedelta(seconds=3)
    names = [f"late{n}" for n in range(6)]
    for name in names:
        rawpublish.send("tests.support.tasks.note", name, _headers={"eta": eta.isoformat()})
    tasks.note.delay("journalled")
    assert_every_process_works(live)
    await_(lambda: effects.count("journalled") == 1, "what is due runs")

    def is_time() -> bool:
        too_early = effects.names("late")
        return datetime.now(UTC) >= eta or too_early != []

    await_(is_time, "their time comes")
    assert datetime.now(UTC) >= eta, "one ran before its time"
    await_(lambda: len(effects.names("late")) == len(names), "they run")
    assert_every_process_works(live)
    assert sorted(effects.names("late")) == names
    assert not DeadLetter.objects.exists()
