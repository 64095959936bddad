"""`outbox.settling`: the last write of a task and the settlement of its message in one commit."""

from __future__ import annotations

import uuid

import pytest

import outbox
from outbox import delivery
from outbox.relay import queries
from outbox.testing import drain, run_here
from tests.cost.counting import counting
from tests.support import effects, settling_tasks, tasks
from tests.support.messages import row

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clean")]


def run_once(how: str) -> tuple[uuid.UUID, object]:
    """One run of a message whose task settles it with its effect; what came of the delivery."""
    message_id = outbox.enqueue(settling_tasks.settles_with_its_effect.s("effect", how))
    (copy,) = queries.mark("default", 1)
    return message_id, run_here(str(message_id), wire=copy.identity(), task=copy.task, queue="default")


def test_the_last_write_and_the_settlement_are_one_commit() -> None:
    outbox.enqueue(tasks.note.s("before"))
    assert drain() == 1  # what a process looks up once is known from here on
    effects.clear()
    message_id = outbox.enqueue(settling_tasks.settles_with_its_effect.s("effect"))
    with counting() as cost:
        assert drain() == 1
    assert effects.names() == ["effect", "done"]
    assert (row(message_id).status, row(message_id).attempts) == ("done", 1)
    outbox.enqueue(settling_tasks.settles_later.s("later"))
    with counting() as cost_in_two:
        assert drain() == 1
    assert effects.names()[2:] == ["later", "published"], "the task does not say that its last write settles"
    assert cost.commits == cost_in_two.commits - 1


def test_what_fails_in_the_block_is_rolled_back_and_retried() -> None:
    message_id, _ = run_once("fails in the block")
    assert (row(message_id).status, row(message_id).attempts) == ("scheduled", 1)
    assert effects.names() == []


def test_what_fails_after_the_block_does_not_run_again() -> None:
    message_id, outcome = run_once("fails after the block")
    assert outcome == delivery.SKIPPED
    assert (row(message_id).status, row(message_id).errors) == ("done", [])
    assert drain() == 0
    assert effects.names() == ["effect", "done"]


def test_a_run_that_was_overtaken_keeps_its_write() -> None:
    """It leaves the message to the other run."""
    message_id, outcome = run_once("is overtaken")
    assert outcome == delivery.SKIPPED
    assert row(message_id).status == "published"
    assert effects.names() == ["effect", "published"]


def test_inside_of_another_transaction_the_message_settles_after_it() -> None:
    message_id, _ = run_once("inside of a transaction")
    assert effects.names() == ["effect", "published"]
    assert row(message_id).status == "done"


def test_without_settling_in_a_block_the_runs_end_settles() -> None:
    message_id, _ = run_once("does not settle")
    assert effects.names() == ["effect", "published"]
    assert row(message_id).status == "done"


def test_children_are_written_with_the_settlement_and_refused_after_it() -> None:
    run_once("has a child")
    assert drain() == 1
    assert effects.names() == ["effect", "done", "child"]
    effects.clear()
    _, outcome = run_once("has a late child")
    assert outcome == delivery.SKIPPED
    assert drain() == 0
    assert effects.names() == ["effect", "done"]


def test_a_transactional_task_settles_before_its_last_statement_at_no_cost() -> None:
    outbox.enqueue(tasks.note_once.s("before"))
    assert drain() == 1  # what a process looks up once is known from here on
    effects.clear()
    message_id = outbox.enqueue(settling_tasks.settles_before_its_effect.s("effect"))
    with counting() as cost:
        assert drain() == 1
    assert effects.names() == ["effect", "done"]
    assert (row(message_id).status, row(message_id).attempts) == ("done", 1)
    outbox.enqueue(tasks.note_once.s("a"))
    with counting() as cost_of_another:
        assert drain() == 1
    # Its status, and the effect that says it.
    assert (cost.statements, cost.commits) == (cost_of_another.statements + 2, cost_of_another.commits)


@pytest.mark.parametrize("where", ["in", "after"])
def test_a_transactional_task_that_fails_after_it_has_settled_runs_again(where: str) -> None:
    message_id = outbox.enqueue(
        settling_tasks.settles_before_its_effect.s("effect", f"fails {where} the block")
    )
    (copy,) = queries.mark("default", 1)
    run_here(str(message_id), wire=copy.identity(), task=copy.task, queue="default")
    assert (row(message_id).status, row(message_id).attempts) == ("scheduled", 1)
    assert effects.names() == []


def test_a_transactional_task_may_enqueue_after_it_has_settled() -> None:
    outbox.enqueue(settling_tasks.settles_before_its_effect.s("effect", "has a child"))
    assert drain() == 2
    assert effects.names() == ["effect", "done", "child"]


def test_outside_of_a_message_the_block_is_a_transaction() -> None:
    def fail() -> None:
        with outbox.settling() as settle:
            effects.add("effect")
            settle()
            raise ConnectionError

    with pytest.raises(ConnectionError):
        fail()
    assert effects.names() == []
