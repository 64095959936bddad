"""Workers of two versions side by side, as in every rolling deploy: what one does not know is left to the other."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import timedelta

import pytest
from django.utils import timezone

import outbox
from dlq.models import DeadLetter
from outbox import conf
from outbox.models import OutboxMessage
from outbox.relay import queries
from outbox.testing import run_here, wait_until_settled
from tests.support import deployed_tasks, effects, tasks
from tests.support.brokers import on_both_brokers
from tests.support.messages import published, row
from tests.support.processes import await_, relay, worker


@pytest.mark.promise(
    "P5",
    "a worker of another version does not know the task or an argument",
    "deferred until a worker knows it; a dead letter after `OUTBOX_SKEW_GRACE`",
    celery="drops it, or a failure",
)
@on_both_brokers
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("clean")
def test_a_task_unknown_to_old_workers_waits_for_a_new_one() -> None:
    """So does one with an argument that they do not know."""
    outbox.enqueue(deployed_tasks.added_by_a_deploy.s("task"))
    for task in (deployed_tasks.changed_by_a_deploy, deployed_tasks.changed_by_a_deploy_once):
        outbox.enqueue(task.s(f"argument of {task.name}", note="new"))
    messages = OutboxMessage.objects.all()

    def refused() -> bool:
        return all(message.errors for message in messages.all())

    with ExitStack() as running:
        running.enter_context(relay())
        with worker(concurrency=1, name="old", env={"HOLDFAST_TEST_OLD_VERSION": "1"}):
            await_(refused, "the old worker has refused each of them")
            assert {(message.attempts, message.deliveries) for message in messages.all()} == {(0, 0)}
            assert not DeadLetter.objects.exists()
            running.enter_context(worker(concurrency=1, name="new"))
        # Side by side each refusal doubles the delay, so that this would end when luck has it.
        wait_until_settled(60)
    assert {message.status for message in messages.all()} == {"done"}
    assert len(effects.names()) == len(set(effects.names())) == 3
    first = {message.task.rpartition(".")[2]: message.errors[0]["error"] for message in messages.all()}
    assert "added_by_a_deploy" in first["added_by_a_deploy"]
    assert "unexpected keyword argument 'note'" in first["changed_by_a_deploy"]
    assert "unexpected keyword argument 'note'" in first["changed_by_a_deploy_once"]


@pytest.mark.django_db
def test_refusals_grow_apart_and_are_a_dead_letter_after_the_grace_period() -> None:
    message_id = published(tasks.note.s("refused"))
    OutboxMessage.objects.update(kwargs={"unknown": 1}, created_at=timezone.now() - timedelta(days=30))

    def refuse() -> float:
        run_here(
            str(message_id),
            wire={"generation": row(message_id).generation},
            task="tests.support.tasks.note",
            queue="default",
        )
        found = row(message_id)
        return (found.deliver_at - timezone.now()).total_seconds()

    def since(ago: timedelta) -> None:
        """The first refusal was so long ago."""
        errors = row(message_id).errors
        errors[-1]["skewed_since"] = (timezone.now() - ago).isoformat()
        OutboxMessage.objects.update(errors=errors, status="pending", deliver_at=timezone.now())

    assert 0 < refuse() <= 1, "a message that waited for a month has all of the grace period"
    since(timedelta(seconds=20))
    assert 15 < refuse() <= 21
    since(timedelta(seconds=1000))
    assert 295 < refuse() <= 300
    assert (row(message_id).status, row(message_id).attempts) == ("scheduled", 0)
    assert "unexpected keyword argument 'unknown'" in row(message_id).errors[-1]["error"]
    since(timedelta(seconds=conf.skew_grace_s()))
    refuse()
    assert row(message_id).status == "dead"
    assert "unexpected keyword" in DeadLetter.objects.get().error
    assert effects.count("refused") == 0


@pytest.mark.django_db
def test_a_type_error_of_the_body_is_no_skew() -> None:
    message_id = outbox.enqueue(deployed_tasks.wrong_type.s("a"))
    (copy,) = queries.mark("default", 1)
    run_here(str(message_id), wire=copy.identity(), task=copy.task, queue="default")
    assert row(message_id).status == "dead"
