"""Celery's `task_soft_time_limit` is honoured, and does not defer the hard limit of a task."""

from __future__ import annotations

import time

import pytest
from celery import current_app

from outbox.task import SOFT_TIME_LIMIT_S, OutboxTask
from outbox.testing import wait_until_settled
from tests.support import tasks
from tests.support.celery_settings import celery_settings
from tests.support.messages import row
from tests.support.processes import relay, worker


def body() -> None: ...


def bound(**words: object) -> OutboxTask:
    name = "tests.a_task_of_this_test"
    current_app.tasks.pop(name, None)
    try:
        task: OutboxTask = current_app.task(name=name, shared=False, lazy=False, **words)(body)  # type: ignore[call-overload]
        return task
    finally:
        current_app.tasks.pop(name, None)


def test_the_soft_limit_is_the_tasks_else_the_setting_else_a_default() -> None:
    assert bound().soft_time_limit == SOFT_TIME_LIMIT_S
    with celery_settings(task_soft_time_limit=40):
        assert bound().soft_time_limit == 40
        assert bound(soft_time_limit=50).soft_time_limit == 50
        assert bound(time_limit=40).soft_time_limit is None


@pytest.mark.promise(
    "P4",
    "a run takes too long",
    "it is asked to stop at its soft limit and killed at its hard one; its dead letter says which",
)
@pytest.mark.django_db(transaction=True)
def test_a_hard_limit_under_the_settings_soft_limit_is_enforced(clean: None) -> None:
    """So is the soft limit."""
    with relay(), worker(env={"HOLDFAST_TEST_SOFT_LIMIT": "4"}):
        began = time.monotonic()
        hard, soft = tasks.over_the_hard_limit.delay("a"), tasks.slow.delay("b", 60)
        wait_until_settled(40)
    assert "TimeLimitExceeded(1" in row(hard.id).errors[-1]["error"]
    assert "SoftTimeLimitExceeded" in row(soft.id).errors[-1]["error"]
    assert time.monotonic() - began < 40
