"""Every ending of a task that ran, seen from the worker's parent: recorded once, and only then acknowledged."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from config.celery import app
from dlq.models import DeadLetter, DeadLetterEvent, Happened, LostRun, State
from outbox.models import OutboxMessage
from outbox.testing import drain
from tests.dlq.preflight import obstacle
from tests.support import effects, rawpublish
from tests.support.brokers import on_rabbitmq_in_proof
from tests.support.pool import assert_every_process_works
from tests.support.processes import Process, await_

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tidy"), on_rabbitmq_in_proof]
TASKS = "tests.support.tasks."


def the_dead_letter(message_id: str, within_s: float = 20.0) -> DeadLetter:
    """The dead letter of a message, and the proof that it is the only one and was opened once."""
    await_(
        lambda: DeadLetter.objects.filter(message_id=message_id).exists(),
        f"a dead letter of {message_id}",
        within_s,
    )
    dead_letter = DeadLetter.objects.get()
    assert dead_letter.message_id == message_id
    assert dead_letter.state == State.OPEN
    assert dead_letter.failures == 1
    assert [event.what for event in DeadLetterEvent.objects.all()] == [Happened.FAILED]
    assert dead_letter.message is not None, "the raw message is kept"
    return dead_letter


def assert_goes_on(live: Process) -> None:
    """Both processes of the pool take work, at the same time: no slot of the pool or of the prefetch is lost."""
    assert_every_process_works(live)


@pytest.mark.described("a job that fails for good is in the dead queue, with its backtrace")
def test_a_task_that_raises_leaves_its_arguments_and_its_traceback(live: Process) -> None:
    dead_letter = the_dead_letter(rawpublish.send(f"{TASKS}permanently_wrong", "a"))
    assert (dead_letter.task, dead_letter.args, dead_letter.kwargs) == (
        f"{TASKS}permanently_wrong",
        ["a"],
        {},
    )
    assert (dead_letter.exception, dead_letter.error, dead_letter.cause) == (
        "ValueError",
        "no retry can mend this",
        "failed",
    )
    assert "permanently_wrong" in dead_letter.traceback
    assert dead_letter.place == "support.tasks.permanently_wrong"
    assert_goes_on(live)


def test_an_exception_that_cannot_be_shown_is_a_dead_letter(live: Process) -> None:
    dead_letter = the_dead_letter(rawpublish.send(f"{TASKS}fails_unspeakably"))
    assert dead_letter.exception.endswith("Unspeakable")
    assert_goes_on(live)


def test_any_exception_of_a_task_is_a_replayable_failure(live: Process) -> None:
    """Whatever its name."""
    dead_letter = the_dead_letter(rawpublish.send(f"{TASKS}cannot_decode_what_it_fetched"))
    assert (dead_letter.cause, dead_letter.exception) == ("failed", "tests.support.tasks.DecodeError")
    assert obstacle(dead_letter) == ""


@pytest.mark.described("a worker without enough arguments is a failure that says so")
def test_wrong_arguments_are_a_dead_letter_at_once(live: Process) -> None:
    dead_letter = the_dead_letter(rawpublish.send(f"{TASKS}note", 1, 2, 3))
    assert dead_letter.exception == "TypeError"
    assert_goes_on(live)


@pytest.mark.promise(
    "P5", "the hard time limit ends a run", "one dead letter", celery="calls its hooks twice"
)
def test_a_hard_time_limit_reported_twice_is_one_dead_letter(live: Process) -> None:
    """Celery reports each of them twice."""
    dead_letter = the_dead_letter(rawpublish.send(f"{TASKS}over_the_hard_limit", "over"))
    assert dead_letter.cause == "timeout"
    assert_goes_on(live)
    assert DeadLetter.objects.count() == 1
    assert effects.count("over") == 1


@pytest.mark.parametrize("timelimit", [[86_400, None], [None, 86_400]])
def test_a_producer_cannot_lift_a_tasks_own_hard_limit(live: Process, timelimit: list[float | None]) -> None:
    headers = {"timelimit": timelimit}
    dead_letter = the_dead_letter(rawpublish.send(f"{TASKS}over_the_hard_limit", "over", _headers=headers))
    assert dead_letter.cause == "timeout"


def test_an_outside_message_with_an_eta_waits_as_a_row(live: Process) -> None:
    """No worker holds it until its time."""
    eta = datetime.now(UTC) + timedelta(hours=2)
    message_id = rawpublish.send(f"{TASKS}note", "later", _headers={"eta": eta.isoformat()})
    await_(lambda: OutboxMessage.objects.filter(status="scheduled").exists(), "it is a row")
    row = OutboxMessage.objects.get()
    assert (str(row.message_id), row.queue, effects.count("later")) == (message_id, "default", 0)
    assert abs((row.deliver_at - eta).total_seconds()) < 10
    assert not any(app.control.inspect(destination=["live@test"], timeout=2, limit=1).scheduled().values())
    drain()
    assert effects.count("later") == 1


def test_an_outside_message_whose_eta_has_passed_runs_at_once(live: Process) -> None:
    rawpublish.send(f"{TASKS}note", "now", _headers={"eta": "2020-01-01T00:00:00+00:00"})
    await_(lambda: effects.count("now") == 1, "it runs")
    assert not OutboxMessage.objects.exists()


def test_a_hard_limit_below_the_soft_one_holds(live: Process) -> None:
    """Celery starts the clock of the hard limit when the soft one has passed."""
    dead_letter = the_dead_letter(
        rawpublish.send(f"{TASKS}slow", "limited", 60, _headers={"timelimit": [1, 300]})
    )
    assert dead_letter.cause == "timeout"


@pytest.mark.promise(
    "P5",
    "a task raises `MemoryError`",
    "one dead letter, and the worker lives",
    celery="ends the whole worker",
)
def test_memory_error_is_a_dead_letter_and_the_worker_lives(live: Process) -> None:
    dead_letter = the_dead_letter(rawpublish.send(f"{TASKS}out_of_memory", "oom"))
    assert dead_letter.exception.endswith("OutOfMemory")
    assert "as if" in dead_letter.traceback
    assert_goes_on(live)
    assert effects.count("oom") == 1


@pytest.mark.promise(
    "P5",
    "a child is killed by a message without a row",
    "three runs, then a dead letter",
    celery="requeues it forever",
)
@pytest.mark.parametrize("task", ["kills_its_process", "exits"])
def test_a_message_that_kills_its_process_runs_three_times(live: Process, task: str) -> None:
    """Then it is a dead letter."""
    dead_letter = the_dead_letter(rawpublish.send(TASKS + task, "poison"), within_s=60)
    assert dead_letter.cause == "lost"
    assert effects.count("poison") == 3
    assert not LostRun.objects.exists(), "a replay has all its runs again"
    assert_goes_on(live)


def test_an_early_acknowledged_message_is_dead_after_one_lost_run(
    live: Process,
) -> None:
    """It was acknowledged before it ran, so that the broker has no copy of it; it is a dead letter."""
    dead_letter = the_dead_letter(
        rawpublish.send(f"{TASKS}kills_its_process_acknowledged", "early"), within_s=60
    )
    assert dead_letter.cause == "lost"
    assert effects.count("early") == 1


def test_a_message_revoked_before_it_ran_is_a_dead_letter(live: Process) -> None:
    message_id = str(uuid.uuid4())
    app.control.revoke(message_id)
    # Control commands are handled in order: once it answers a ping it knows of the revocation.
    await_(lambda: app.control.ping(timeout=0.5), "the worker answers")
    rawpublish.send(f"{TASKS}note", "revoked", _headers={"id": message_id})
    assert the_dead_letter(message_id).cause == "revoked"
    assert_goes_on(live)
    assert effects.count("revoked") == 0


def test_a_message_terminated_while_it_runs_is_one_dead_letter(live: Process) -> None:
    message_id = rawpublish.send(f"{TASKS}slow", "cut", 60)
    await_(lambda: effects.count("cut-begun"), "it runs")
    app.control.revoke(message_id, terminate=True)
    assert the_dead_letter(message_id).cause == "revoked"
    assert_goes_on(live)
    assert DeadLetter.objects.count() == 1


def test_a_soft_time_limit_is_an_ordinary_failure(live: Process) -> None:
    message_id = rawpublish.send(f"{TASKS}slow", "soft", 60, _headers={"timelimit": [30, 0.5]})
    assert the_dead_letter(message_id).exception.endswith("SoftTimeLimitExceeded")
    assert_goes_on(live)
