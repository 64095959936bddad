"""Messages through a real relay, a real broker and real worker processes, with kills in between."""

from __future__ import annotations

import os
import signal

import pytest

import outbox
from outbox.models import OutboxMessage
from outbox.testing import wait_until_settled
from tests.support import brokers, effects, tasks
from tests.support.brokers import on_both_brokers, on_rabbitmq_in_proof
from tests.support.processes import await_, relay, worker

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clean")]

#: Quick judgements, so that a test need not wait as long as production should.
QUICK = {"OUTBOX_MARGIN": "1", "OUTBOX_WORKER_TIMEOUT": "3"}


def statuses() -> dict[str, int]:
    found: dict[str, int] = {}
    for status in OutboxMessage.objects.values_list("status", flat=True):
        found[status] = found.get(status, 0) + 1
    return found


@on_both_brokers
def test_every_message_past_many_batches_has_its_effect_once() -> None:
    names = [f"m{n}" for n in range(500)]
    outbox.enqueue_many([tasks.note_once.s(name) for name in names])
    with worker(), relay(batch=50), relay(batch=50):
        wait_until_settled(60)
    assert sorted(effects.names()) == sorted(names)


@on_rabbitmq_in_proof
def test_a_broker_that_forgets_everything_loses_no_message() -> None:
    names = [f"m{n}" for n in range(200)]
    outbox.enqueue_many([tasks.note_once.s(name) for name in names])
    with relay(env=QUICK):
        await_(lambda: statuses().get("published") == 200, "all are published")
        brokers.empty()
        with worker(env=QUICK):
            wait_until_settled(60)
    assert sorted(effects.names()) == sorted(names)


@pytest.mark.described("a message is acknowledged after its run: a worker that is killed loses no work")
@pytest.mark.promise(
    "P2",
    "a worker is killed in the middle of a task",
    "the message is requeued when its worker's heartbeat is missing",
)
@pytest.mark.parametrize(
    ("broker", "task"),
    [
        ("redis", tasks.slow),
        ("redis", tasks.slow_transactional),
        ("rabbitmq", tasks.slow),
        pytest.param("rabbitmq", tasks.slow_transactional, marks=pytest.mark.proof),
    ],
    indirect=["broker"],
)
def test_a_killed_worker_loses_no_work(task: object) -> None:
    outbox.enqueue(task.s("a", 3))  # type: ignore[attr-defined]

    with relay(env=QUICK):
        with worker(concurrency=1, env=QUICK, name="first") as first:
            await_(lambda: "received" in first.output(), "the first worker has the message")
            os.killpg(first.pid, signal.SIGKILL)
            first.popen.wait(10)
        with worker(concurrency=1, env=QUICK, name="second"):
            wait_until_settled(60)

    (message,) = OutboxMessage.objects.all()
    assert message.status == "done"
    ended = "a-ended" if task is tasks.slow else "a"
    assert effects.count(ended) == 1


@pytest.mark.promise(
    "P4",
    "a message ends its process each time that it runs",
    "a dead letter after `max_deliveries`; the worker lives",
)
@on_rabbitmq_in_proof
@pytest.mark.parametrize(
    "task",
    [
        tasks.kills_its_process,
        pytest.param(tasks.kills_its_process_in_transaction, marks=pytest.mark.proof),
    ],
)
def test_a_poison_message_is_dead_after_max_deliveries_and_the_worker_lives(task: object) -> None:
    poison = outbox.enqueue(task.s("poison"))  # type: ignore[attr-defined]

    with relay(env=QUICK), worker(concurrency=1, env=QUICK) as process:
        wait_until_settled(60)

        good = outbox.enqueue(tasks.note_once.s("good"))
        wait_until_settled(30)
        assert process.alive()

    assert OutboxMessage.objects.get(message_id=poison).status == "dead"
    assert OutboxMessage.objects.get(message_id=good).status == "done"
    assert effects.count("poison") in (0, 3)


@on_rabbitmq_in_proof
@pytest.mark.parametrize("task", [tasks.over_the_hard_limit, tasks.exits, tasks.out_of_memory])
def test_an_ending_that_celery_hides_is_one_dead_letter(task: object) -> None:
    """The next message runs."""
    from dlq.models import DeadLetter

    bad = outbox.enqueue(task.s("bad"))  # type: ignore[attr-defined]
    with relay(env=QUICK), worker(concurrency=1, env=QUICK) as process:
        wait_until_settled(60)
        outbox.enqueue(tasks.note_once.s("good"))
        wait_until_settled(30)
        assert process.alive()
    assert OutboxMessage.objects.get(message_id=bad).status == "dead"
    assert DeadLetter.objects.filter(message_id=str(bad)).count() == 1
    assert effects.count("good") == 1


def test_a_return_value_that_is_no_json_is_no_failure() -> None:
    """Celery would call the task failed, after its effect."""
    message_id = outbox.enqueue(tasks.returns_no_json.s("a"))
    with relay(env=QUICK), worker(concurrency=1, env=QUICK):
        wait_until_settled(30)
    assert OutboxMessage.objects.get(message_id=message_id).status == "done"
    assert effects.names() == ["a"]
