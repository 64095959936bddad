"""A message from enqueueing to its end, in one process: claim, run, retry, defer, settle, dead-letter."""

from __future__ import annotations

import pytest
from celery import chain, chord, group
from django.db import transaction

import outbox
from outbox import transitions
from outbox.errors import EnqueueError, UnknownQueue
from outbox.models import OutboxMessage
from outbox.relay import queries
from outbox.testing import clear, drain, run_here, staged
from tests.support import effects, settling_tasks, tasks
from tests.support.messages import row

pytestmark = pytest.mark.django_db


@pytest.mark.described("transactional outbox: the order and its message are committed together")
@pytest.mark.promise("P1", "the broker is down", "orders are accepted as always: no request needs it")
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


@pytest.mark.described("transactional outbox: the order and its message are committed together")
@pytest.mark.django_db(transaction=True)
def test_a_rolled_back_transaction_leaves_no_message() -> None:
    with transaction.atomic():
        tasks.note.delay("a")
        assert len(staged()) == 1
        transaction.set_rollback(True)
    assert staged() == []


@pytest.mark.described("jobs run at once in a test (`inline!`)")
def test_drain_runs_what_is_staged_and_settles_it() -> None:
    message_id = outbox.enqueue(tasks.note.s("a"), queue="low", delay=3600)
    assert row(message_id).status == "scheduled"
    assert drain() == 1
    assert effects.names() == ["a"]
    assert (row(message_id).status, row(message_id).attempts) == ("done", 1)


def test_drain_names_what_was_published_before_and_is_not_run_here() -> None:
    message_id = outbox.enqueue(tasks.note.s("a"))
    queries.mark("default", 10)
    with pytest.raises(AssertionError, match=rf"tests\.support\.tasks\.note {message_id} published"):
        drain()


def test_a_task_called_as_a_function_is_a_plain_call() -> None:
    assert tasks.note("a") == "a"
    assert staged() == []


def test_effects_of_a_failed_transactional_run_are_rolled_back() -> None:
    outbox.enqueue(tasks.transactional_unavailable.s("a"))
    drain()
    assert effects.names() == []


@pytest.mark.promise(
    "P2",
    "a run fails that would have enqueued children",
    "children are written with its settlement, or not at all",
)
def test_children_of_a_run_that_fails_are_not_enqueued() -> None:
    outbox.enqueue(settling_tasks.parent_of_two.s("a", fail=True))

    assert drain() == 1

    assert effects.names() == []


def test_children_carry_their_cause_and_correlation() -> None:
    message_id = outbox.enqueue(settling_tasks.parent_of_two.s("a"), correlation_id="story-1")
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


@pytest.mark.promise("P7", "the head of a group fails for good", "the group waits for a decision")
def test_a_dead_head_holds_its_group_until_it_is_replayed() -> None:
    head = outbox.enqueue(tasks.ordered.s("0", fail=True), ordering_key="g")
    outbox.enqueue(tasks.ordered.s("1"), ordering_key="g")

    drain()
    assert effects.names() == ["0"]

    OutboxMessage.objects.filter(message_id=head).update(args=["0-mended"], kwargs={})
    assert transitions.replay(head)
    drain()

    assert effects.names() == ["0", "0-mended", "1"]


@pytest.mark.promise("P7", "an operator discards the dead head of a group", "the next message runs")
def test_a_cancelled_dead_head_lets_its_group_go_on() -> None:
    head = outbox.enqueue(tasks.ordered.s("0", fail=True), ordering_key="g")
    outbox.enqueue(tasks.ordered.s("1"), ordering_key="g")
    drain()

    assert transitions.cancel(head, reason="given up")
    drain()

    assert effects.names() == ["0", "1"]


@pytest.mark.promise(
    "P7", "the head of a group fails for good, and its task passes over the dead", "the next message runs"
)
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
        (lambda: tasks.note.s("a").set(task_id=7), "task_id must be text"),
        (lambda: tasks.note.s("a").set(link=tasks.note.s("b")), "cannot keep `link`: enqueue the next step"),
        (lambda: tasks.note.s("a").set(expires=5), "cannot keep `expires`: check in the task"),
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


@pytest.mark.described("a job whose id was processed does nothing (`job_processed`, `mark_processed`)")
def test_a_late_copy_of_an_older_generation_is_skipped_and_counted() -> None:
    message_id = outbox.enqueue(tasks.always_unavailable.s("a"))
    queries.mark("default", 10)
    wire = {"generation": 1, "publish": 1}
    run_here(str(message_id), wire=wire, task="tests.support.tasks.always_unavailable", queue="default")
    run_here(str(message_id), wire=wire, task="tests.support.tasks.always_unavailable", queue="default")
    assert effects.names() == ["a"]
    assert row(message_id).duplicates == 1
