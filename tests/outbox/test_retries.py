"""A run that fails, or asks to be run again: attempts, delays, and the words of Celery that say them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import current_app
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone
from pytest_mock import MockerFixture

import outbox
from outbox.models import OutboxMessage
from outbox.relay import queries
from outbox.testing import drain, run_here, staged
from tests.support import effects, idioms, retrying_tasks, tasks
from tests.support.messages import row

pytestmark = pytest.mark.django_db


@pytest.mark.promise(
    "P5",
    "a task fails in each of its attempts",
    "a dead letter after the last retry, with the error of each attempt",
    celery="acknowledges it: a line in the log",
)
@pytest.mark.described("a job that failed in each of its three attempts is a dead letter with `attempts` 3")
@pytest.mark.parametrize("task", [tasks.always_unavailable, tasks.transactional_unavailable])
def test_three_attempts_are_two_retries_and_then_a_dead_message(task: object) -> None:
    message_id = outbox.enqueue(task.s("a"))  # type: ignore[attr-defined]
    assert drain() == 3
    message = row(message_id)
    assert (message.status, message.attempts, message.generation) == ("dead", 3, 3)
    assert [e["error"] for e in message.errors] == ["ConnectionError: the other side is down"] * 3


@pytest.mark.promise(
    "P5", "a task raises one of its `permanent_errors`", "a dead letter at once, without a retry"
)
@pytest.mark.described("a permanent error is a dead letter without a retry (`PermanentError`)")
def test_a_permanent_error_is_dead_at_once_whatever_autoretry_for_says() -> None:
    message_id = outbox.enqueue(tasks.permanently_wrong.s("a"))
    assert drain() == 1
    assert row(message_id).status == "dead"


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (tasks.always_unavailable, ["attempt 1 of 3", "attempt 2 of 3", "attempt 3 of 3"]),
        (tasks.transactional_wrong, ["attempt 1 ("]),
        (tasks.permanently_wrong, ["attempt 1 ("]),
    ],
)
def test_the_log_tells_of_further_attempts_only_where_the_error_is_retried(
    task: Any, said: list[str], mocker: MockerFixture
) -> None:
    log = mocker.patch("outbox.report.log.log")
    outbox.enqueue(task.s("a"))
    drain()
    lines = [call.args[1] % call.args[2:] for call in log.call_args_list]
    assert [part in line for part, line in zip(said, lines, strict=True)] == [True] * len(said), lines
    assert " failed for good: " in lines[-1]


def test_a_task_that_replaces_itself_is_refused_by_name() -> None:
    outbox.enqueue(idioms.replaces_itself.s("a"))
    drain()
    message = OutboxMessage.objects.get()
    assert message.status == "dead"
    assert "the outbox cannot keep `replace`: enqueue the next step" in str(message.errors[-1])


def test_a_deferral_spends_no_attempt() -> None:
    message_id = outbox.enqueue(retrying_tasks.deferred_until.s("a", 8))
    assert drain() == 8
    assert (row(message_id).status, row(message_id).attempts, row(message_id).generation) == ("done", 1, 8)


def test_retry_rearms_the_same_row_with_the_given_countdown() -> None:
    message_id = outbox.enqueue(retrying_tasks.retries_itself.s("a"))
    (message,) = staged()
    queries.mark("default", 10)
    run_here(message_id, wire={"generation": 1, "publish": 1}, task=message.task, queue="default")  # type: ignore[arg-type]
    again = row(message_id)
    assert (again.status, again.generation, again.attempts) == ("scheduled", 2, 1)
    assert 5 < (again.deliver_at - again.created_at).total_seconds() < 60
    assert drain() == 3
    assert row(message_id).status == "dead"


def run_once(message_id: uuid.UUID) -> OutboxMessage:
    """One run of a pending message, without the time that `drain` lets pass."""
    (message,) = queries.mark("default", 10)
    run_here(message.message_id, wire=message.identity(), task=message.task, queue="default")
    return row(message_id)


def delay_s(message: OutboxMessage) -> float:
    return (message.deliver_at - timezone.now()).total_seconds()


def test_retry_that_does_not_throw_lets_the_body_end_and_then_happens() -> None:
    message_id = outbox.enqueue(retrying_tasks.retries_at_its_end.s("a"))
    again = run_once(message_id)
    assert effects.names() == ["a"]
    assert (again.status, again.generation, again.attempts) == ("scheduled", 2, 1)
    assert 5 < delay_s(again) <= 7
    assert drain() == 2
    assert row(message_id).status == "dead"


def test_an_eta_without_a_zone_is_in_the_applications_zone() -> None:
    assert current_app.timezone == ZoneInfo("UTC")
    app = retrying_tasks.retries_with.app
    with zone_of(app, "Asia/Tokyo"):
        retried = run_once(outbox.enqueue(retrying_tasks.retries_with.s("a", naive_eta_in_s=600)))
        assert retried.status == "scheduled"
        assert 590 < delay_s(retried) <= 600
        local = datetime.now(ZoneInfo("Asia/Tokyo")).replace(tzinfo=None)
        later = tasks.note.apply_async(("b",), eta=local + timedelta(seconds=300))
    assert 290 < delay_s(row(later.id)) <= 300


@contextmanager
def zone_of(app: Any, name: str) -> Iterator[None]:
    ordinary = app.timezone
    app.timezone = ZoneInfo(name)
    try:
        yield
    finally:
        app.timezone = ordinary


@pytest.mark.parametrize("seconds", ["inf", "nan", "-1", "1e12"])
@pytest.mark.parametrize("task", ["deferred_for", "retries_with"])
def test_a_delay_that_never_ends_is_refused(task: str, seconds: str) -> None:
    """It does not become a row without a time."""
    signature = (
        retrying_tasks.deferred_for.s("a", seconds)
        if task == "deferred_for"
        else retrying_tasks.retries_with.s("a", countdown=seconds)
    )
    message = run_once(outbox.enqueue(signature))
    assert message.status == "dead"
    assert "number of seconds from 0 to ten years" in message.errors[0]["error"]


def test_a_bare_retry_has_the_tasks_delays_and_ends_with_its_retries() -> None:
    message_id = outbox.enqueue(retrying_tasks.raises_a_bare_retry.s("a"))
    again = run_once(message_id)
    assert 0.3 < (again.deliver_at - timezone.now()).total_seconds() <= 0.4  # RETRY_SCALE
    assert drain() == 2
    assert row(message_id).status == "dead"
    assert "retries are spent" in row(message_id).errors[-1]["error"]


@pytest.mark.parametrize(
    "task", [retrying_tasks.retries_in_celerys_words, retrying_tasks.retries_after_the_default_delay]
)
def test_celerys_options_for_delay_and_limit_mean_what_they_say(task: Any) -> None:
    message_id = outbox.enqueue(task.s("a"))
    assert 30 < delay_s(run_once(message_id)) <= 40  # RETRY_SCALE
    assert drain() == 1
    assert (row(message_id).status, row(message_id).attempts) == ("dead", 2)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"retry_kwargs": {"max_retries": 1, "queue": "low"}}, "retry_kwargs takes no queue"),
        ({"retry_kwargs": {"max_retries": 1}, "retry_schedule": (1, 2)}, "retry_schedule says how many"),
        ({"default_retry_delay": float("inf")}, "number of seconds from 0 to ten years"),
        ({"expires": 60}, "does not expire"),
        ({"acks_late": False}, "acks_late must be on, else its work is lost"),
        ({"reject_on_worker_lost": False}, "reject_on_worker_lost must be on"),
        ({"acks_on_failure_or_timeout": False}, "acks_on_failure_or_timeout must be on"),
    ],
)
def test_a_celery_option_that_would_be_ignored_is_refused(words: dict[str, Any], says: str) -> None:
    """With a reason."""

    def body() -> None: ...

    name = "tests.outbox.refused"
    try:
        with pytest.raises(ImproperlyConfigured, match=says):
            current_app.task(
                body, name=name, lazy=False, shared=False, **words
            )  # no other application gets it
    finally:
        current_app.tasks.pop(name, None)
