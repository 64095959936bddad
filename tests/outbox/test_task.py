"""A message from enqueueing to its end, in one process: claim, run, retry, defer, settle, bury."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import chain, chord, current_app, group
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.utils import timezone

import outbox
from outbox import dispatch, journal
from outbox.errors import EnqueueError, UnknownQueue
from outbox.models import OutboxMessage
from outbox.testing import clear, drain, run_here, staged
from tests.support import effects, tasks

pytestmark = pytest.mark.django_db


def row(message_id: uuid.UUID | str) -> OutboxMessage:
    return OutboxMessage.objects.get(message_id=str(message_id))


def test_delay_writes_a_row_of_the_callers_transaction() -> None:
    result = tasks.note.delay("a")
    (message,) = staged()
    assert (message.task, message.args, message.kwargs, message.queue) == (
        "tests.support.tasks.note",
        ["a"],
        {},
        "default",
    )
    assert str(message.message_id) == result.id
    assert effects.names() == []


@pytest.mark.django_db(transaction=True)
def test_a_rolled_back_transaction_leaves_no_message() -> None:
    with transaction.atomic():
        tasks.note.delay("a")
        assert len(staged()) == 1
        transaction.set_rollback(True)
    assert staged() == []


def test_drain_runs_what_is_staged_and_settles_it() -> None:
    message_id = outbox.enqueue(tasks.note.s("a"), queue="low", delay=3600)
    assert row(message_id).status == "scheduled"
    assert drain() == 1
    assert effects.names() == ["a"]
    assert (row(message_id).status, row(message_id).attempts) == ("done", 1)


def test_drain_names_what_was_published_before_and_is_not_run_here() -> None:
    message_id = outbox.enqueue(tasks.note.s("a"))
    dispatch.mark("default", 10)
    with pytest.raises(AssertionError, match=rf"tests\.support\.tasks\.note {message_id} published"):
        drain()


def test_a_task_called_as_a_function_is_a_plain_call() -> None:
    assert tasks.note("a") == "a"
    assert staged() == []


@pytest.mark.parametrize("task", [tasks.always_unavailable, tasks.transactional_unavailable])
def test_three_attempts_are_two_retries_and_then_a_dead_message(task: object) -> None:
    message_id = outbox.enqueue(task.s("a"))  # type: ignore[attr-defined]
    assert drain() == 3
    message = row(message_id)
    assert (message.status, message.attempts, message.generation) == ("dead", 3, 3)
    assert [e["error"] for e in message.errors] == ["ConnectionError: the other side is away"] * 3


def test_effects_of_a_failed_transactional_run_are_rolled_back() -> None:
    outbox.enqueue(tasks.transactional_unavailable.s("a"))
    drain()
    assert effects.names() == []


def test_a_permanent_error_is_dead_at_once_whatever_autoretry_for_says() -> None:
    message_id = outbox.enqueue(tasks.permanently_wrong.s("a"))
    assert drain() == 1
    assert row(message_id).status == "dead"


def test_a_deferral_spends_no_attempt() -> None:
    message_id = outbox.enqueue(tasks.deferred_until.s("a", 8))
    assert drain() == 8
    assert (row(message_id).status, row(message_id).attempts, row(message_id).generation) == ("done", 1, 8)


def test_retry_rearms_the_same_row_with_the_given_countdown() -> None:
    message_id = outbox.enqueue(tasks.retries_itself.s("a"))
    (message,) = staged()
    dispatch.mark("default", 10)
    run_here(message_id, wire={"generation": 1, "publish": 1}, task=message.task, queue="default")  # type: ignore[arg-type]
    again = row(message_id)
    assert (again.status, again.generation, again.attempts) == ("scheduled", 2, 1)
    assert 5 < (again.deliver_at - again.created_at).total_seconds() < 60
    assert drain() == 3
    assert row(message_id).status == "dead"


def run_once(message_id: uuid.UUID) -> OutboxMessage:
    """One run of a pending message, without the time that `drain` lets pass."""
    (message,) = dispatch.mark("default", 10)
    run_here(message.message_id, wire=message.identity(), task=message.task, queue="default")
    return row(message_id)


def delay_s(message: OutboxMessage) -> float:
    return (message.deliver_at - timezone.now()).total_seconds()


def test_retry_that_does_not_throw_lets_the_body_end_and_then_happens() -> None:
    message_id = outbox.enqueue(tasks.retries_at_its_end.s("a"))
    again = run_once(message_id)
    assert effects.names() == ["a"]
    assert (again.status, again.generation, again.attempts) == ("scheduled", 2, 1)
    assert 5 < delay_s(again) <= 7
    assert drain() == 2
    assert row(message_id).status == "dead"


def test_an_eta_without_a_zone_is_in_the_applications_zone() -> None:
    assert current_app.timezone == ZoneInfo("UTC")
    app = tasks.retries_with.app
    with zone_of(app, "Asia/Tokyo"):
        retried = run_once(outbox.enqueue(tasks.retries_with.s("a", naive_eta_in_s=600)))
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
def test_a_delay_that_never_ends_is_refused_and_does_not_become_a_row_of_no_time(
    task: str, seconds: str
) -> None:
    signature = (
        tasks.deferred_for.s("a", seconds)
        if task == "deferred_for"
        else tasks.retries_with.s("a", countdown=seconds)
    )
    message = run_once(outbox.enqueue(signature))
    assert message.status == "dead"
    assert "number of seconds from 0 to ten years" in message.errors[0]["error"]


def test_a_bare_retry_has_the_tasks_delays_and_ends_with_its_retries() -> None:
    message_id = outbox.enqueue(tasks.raises_a_bare_retry.s("a"))
    again = run_once(message_id)
    assert 0.3 < (again.deliver_at - timezone.now()).total_seconds() <= 0.4  # RETRY_SCALE
    assert drain() == 2
    assert row(message_id).status == "dead"
    assert "retries are spent" in row(message_id).errors[-1]["error"]


@pytest.mark.parametrize("task", [tasks.retries_in_celerys_words, tasks.retries_after_the_default_delay])
def test_celerys_words_for_a_fixed_delay_and_a_limit_mean_what_they_say(task: Any) -> None:
    message_id = outbox.enqueue(task.s("a"))
    assert 30 < delay_s(run_once(message_id)) <= 40  # RETRY_SCALE
    assert drain() == 1
    assert (row(message_id).status, row(message_id).attempts) == ("dead", 2)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"retry_kwargs": {"max_retries": 1, "queue": "low"}}, "retry_kwargs knows no queue"),
        ({"retry_kwargs": {"max_retries": 1}, "retry_schedule": (1, 2)}, "retry_schedule says how many"),
        ({"default_retry_delay": float("inf")}, "number of seconds from 0 to ten years"),
        ({"expires": 60}, "does not expire"),
    ],
)
def test_a_word_of_celery_that_would_be_ignored_is_refused_with_a_reason(
    words: dict[str, Any], says: str
) -> None:
    def body() -> None: ...

    name = "tests.outbox.refused"
    try:
        with pytest.raises(ImproperlyConfigured, match=says):
            current_app.task(body, name=name, lazy=False, **words)
    finally:
        current_app.tasks.pop(name, None)


def test_children_of_a_run_that_fails_are_not_enqueued() -> None:
    outbox.enqueue(tasks.parent_of_two.s("a", fail=True))
    assert drain() == 1
    assert effects.names() == []


def test_children_carry_their_cause_and_correlation() -> None:
    message_id = outbox.enqueue(tasks.parent_of_two.s("a"), correlation_id="story-1")
    assert drain() == 3
    children = OutboxMessage.objects.filter(task="tests.support.tasks.note")
    assert {c.correlation_id for c in children} == {"story-1"}
    assert {c.headers["causation_id"] for c in children} == {str(message_id)}


def test_a_dedup_key_allows_one_open_message_and_another_after_it_ended() -> None:
    outbox.enqueue(tasks.note.s("a"), dedup_key="k")
    outbox.enqueue(tasks.note.s("a"), dedup_key="k")
    assert len(staged()) == 1
    drain()
    outbox.enqueue(tasks.note.s("a"), dedup_key="k")
    assert len(staged()) == 1


def test_a_group_runs_in_order_one_at_a_time() -> None:
    for n in range(5):
        outbox.enqueue(tasks.ordered.s(f"{n}"), ordering_key="g", delay=100 - n)
    drain()
    assert effects.names() == ["0", "1", "2", "3", "4"]


def test_a_dead_head_holds_its_group_until_it_is_replayed() -> None:
    head = outbox.enqueue(tasks.ordered.s("0", fail=True), ordering_key="g")
    outbox.enqueue(tasks.ordered.s("1"), ordering_key="g")
    drain()
    assert effects.names() == ["0"]
    OutboxMessage.objects.filter(message_id=head).update(args=["0-mended"], kwargs={})
    assert journal.rearm(head)
    drain()
    assert effects.names() == ["0", "0-mended", "1"]


def test_a_cancelled_dead_head_lets_its_group_go_on() -> None:
    head = outbox.enqueue(tasks.ordered.s("0", fail=True), ordering_key="g")
    outbox.enqueue(tasks.ordered.s("1"), ordering_key="g")
    drain()
    assert journal.cancel(head, reason="given up")
    drain()
    assert effects.names() == ["0", "1"]


def test_a_dead_head_is_passed_over_where_the_task_says_so() -> None:
    outbox.enqueue(tasks.ordered_passing.s("0", fail=True), ordering_key="g")
    outbox.enqueue(tasks.ordered_passing.s("1"), ordering_key="g")
    drain()
    assert effects.names() == ["0", "1"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: chain(tasks.note.s("a"), tasks.note.si("b")), "chain cannot be enqueued"),
        (lambda: group(tasks.note.s("a"), tasks.note.s("b")), "group cannot be enqueued"),
        (lambda: chord([tasks.note.s("a")], tasks.note.s("b")), "chord cannot be enqueued"),
        (lambda: tasks.note.s(object()), "args must be JSON"),
        (lambda: tasks.note.s(name=float("nan")), "kwargs must be JSON"),
        (lambda: tasks.note.s("a\x00b"), "NUL"),
        (lambda: tasks.note.s("\ud800"), "args must be JSON"),
        (lambda: tasks.note.s("a" * 70_000), "the limit is 65536"),
        (lambda: tasks.note.s(), "missing 1 required"),
        (lambda: tasks.note.s("a", wrong=1), "unexpected keyword"),
        (lambda: tasks.note.s("a").set(task_id="7"), "task_id must be a UUID"),
        (lambda: tasks.note.s("a").set(link=tasks.note.s("b")), "does not know link"),
        (lambda: tasks.note.s("a").set(expires=5), "does not know expires"),
        (lambda: tasks.note.s("a").set(countdown=-1), "delay must be"),
    ],
)
def test_what_the_outbox_cannot_keep_is_refused_with_a_reason(make: object, says: str) -> None:
    with pytest.raises(EnqueueError, match=says):
        outbox.enqueue(make())  # type: ignore[operator]
    assert staged() == []


def test_a_canvas_that_is_applied_is_refused_as_well() -> None:
    for canvas in (
        chain(tasks.note.s("a"), tasks.note.si("b")),
        group([tasks.note.s("a"), tasks.note.s("b")]),
    ):
        with pytest.raises(EnqueueError):
            canvas.delay()
    assert staged() == []


def test_an_unknown_queue_is_refused() -> None:
    with pytest.raises(UnknownQueue, match="'nope'"):
        outbox.enqueue(tasks.note.s("a"), queue="nope")


def test_an_unknown_event_is_refused() -> None:
    with pytest.raises(EnqueueError, match=r"order\.misspelt"):
        outbox.emit("order.misspelt", order_id=1)


def test_the_text_of_an_escaped_nul_is_not_a_nul() -> None:
    outbox.enqueue(tasks.note.s("\\u0000"))
    assert staged()[0].args == ["\\u0000"]
    clear()


def test_a_late_copy_of_an_older_generation_is_skipped_and_counted() -> None:
    message_id = outbox.enqueue(tasks.always_unavailable.s("a"))
    dispatch.mark("default", 10)
    wire = {"generation": 1, "publish": 1}
    run_here(str(message_id), wire=wire, task="tests.support.tasks.always_unavailable", queue="default")
    run_here(str(message_id), wire=wire, task="tests.support.tasks.always_unavailable", queue="default")
    assert effects.names() == ["a"]
    assert row(message_id).duplicates == 1
