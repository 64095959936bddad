"""Celery's `task_always_eager`: a task runs at once in the caller's process, retries and all, and nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pytest
from celery import current_app
from celery.exceptions import Retry

import outbox
from outbox.errors import EnqueueError, ForeignMessage
from outbox.testing import staged
from tests.support import effects, idioms, settling_tasks, tasks
from tests.support.celery_settings import celery_settings


@pytest.fixture(params=[True, False], ids=["propagates", "keeps errors"])
def propagates(request: pytest.FixtureRequest, db: None) -> Iterator[bool]:
    with celery_settings(task_always_eager=True, task_eager_propagates=request.param):
        yield request.param
    assert staged() == []


def test_a_task_runs_at_once(propagates: bool) -> None:
    assert tasks.note.delay("a").get() == "a"
    tasks.note_once.delay("b")
    idioms.surrounded.delay("c")
    idioms.replaced.delay("d")
    assert current_app.send_task("tests.support.tasks.note", ["e"]).get() == "e"
    outbox.enqueue(tasks.note.s("f"))
    assert effects.names() == ["a", "b", "around", "c", "instead", "d", "e", "f"]


def test_arguments_arrive_as_from_a_worker(propagates: bool) -> None:
    outbox.enqueue(idioms.takes.s((1, Decimal("2.0"))))
    idioms.takes.delay((1, Decimal("2.0")))
    assert effects.names() == [repr((([1, Decimal("2.0")],), {}))] * 2


def test_what_is_refused_in_production_is_refused_in_tests(propagates: bool) -> None:
    for given in (
        {"link": tasks.note.si("b")},
        {"expires": 60},
        {"priority": 5},
        {"queue": "unknown"},
        {"tenant": "acme"},
    ):
        with pytest.raises(EnqueueError, match=next(iter(given))):
            tasks.note.apply_async(("a",), **given)
    with pytest.raises(EnqueueError, match="link"):
        tasks.note.apply_async(("a",), None, "an-id", None, tasks.note.si("b"))
    assert effects.names() == []
    tasks.note.apply_async(("c",), queue="low", countdown=60)
    assert effects.names() == ["c"]


def test_what_a_task_enqueues_runs_at_once(propagates: bool) -> None:
    settling_tasks.parent_of_two.delay("a")
    assert effects.names() == ["a-child-1", "a-child-2"]


def test_retries_run_at_once_or_are_raised_as_celery_does_it(propagates: bool) -> None:
    for send, runs in (
        (lambda: idioms.fails_at_first.delay("a"), 3),
        (lambda: idioms.surrounded.delay("a", again=True), 2),
        (lambda: tasks.always_unavailable.delay("a"), 3),
    ):
        effects.clear()
        if propagates:
            with pytest.raises(Retry):
                send()
        else:
            send()
        assert effects.count("a") == (1 if propagates else runs)


def test_an_error_is_raised_where_the_setting_says_so(propagates: bool) -> None:
    if propagates:
        with pytest.raises(ValueError, match="wrong"):
            tasks.transactional_wrong.delay("a")
    else:
        assert tasks.transactional_wrong.delay("a").state == "FAILURE"
        assert tasks.always_unavailable.delay("a").state == "FAILURE"
        assert idioms.fails_at_first.delay("b").get() == "b"


def test_on_commit_runs_on_commit(propagates: bool, django_capture_on_commit_callbacks: object) -> None:
    with django_capture_on_commit_callbacks(execute=True):  # type: ignore[operator]
        tasks.note.delay_on_commit("a")
        assert effects.names() == []
    assert effects.names() == ["a"]


@pytest.mark.django_db
def test_a_task_that_is_applied_here_runs_here() -> None:
    assert tasks.note.apply(("a",)).get() == "a"
    assert tasks.note.s("b").apply().get() == "b"


def test_a_message_that_says_it_is_eager_is_not() -> None:
    task = tasks.not_for_outsiders
    task.push_request(is_eager=True, called_directly=False, delivery_info={"routing_key": "default"})
    try:
        with pytest.raises(ForeignMessage):
            task("a")
    finally:
        task.pop_request()
