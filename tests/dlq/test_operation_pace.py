"""An operation sends no faster than it was asked to, stops by itself, and is held, resumed and cancelled."""

from __future__ import annotations

import pytest
from django.utils import timezone

from dlq.models import DeadLetter, Operation, State
from dlq.operations import control, driver, selection
from dlq.operations.control import NotPossible
from dlq.operations.models import Kind, Outcome, Progress
from dlq.operations.progress import numbers, refusals
from dlq.operations.step import step
from outbox import dlq_hooks
from outbox.models import OutboxMessage
from tests.dlq.concurrency import at_once
from tests.dlq.operating import a_second_later, dead, fail, publisher, sent, started, state_of, succeed

pytestmark = pytest.mark.usefixtures("journal_of_every_message")


@pytest.mark.django_db
def test_a_canary_is_waited_for_and_then_each_step_doubles() -> None:
    """Each step sends as many as all before it."""
    ids = dead(20)
    operation = started(canary=2)
    step(operation.pk)
    step(operation.pk)
    assert sent == ids[:2], "their outcome is not known"
    succeed("m-0")
    step(operation.pk)
    assert len(sent) == 2, "one of them is not known"
    succeed("m-1")
    for expected in (4, 8, 16, 20):
        step(operation.pk)
        assert len(sent) == expected


@pytest.mark.django_db
def test_a_canary_that_fails_again_stops_the_operation() -> None:
    """A resume sends another canary."""
    dead(10)
    operation = started(canary=2)
    step(operation.pk)
    fail("m-0", "m-1")
    step(operation.pk)
    stopped = Operation.objects.get(pk=operation.pk)
    assert (stopped.state, stopped.stopped_why) == (Progress.STOPPED, "2 of 2 failed again")
    step(operation.pk)
    assert len(sent) == 2
    control.resume(operation.pk, actor="bob", drive=False)
    step(operation.pk)
    step(operation.pk)
    assert len(sent) == 4
    history = [(each["what"], each["actor"]) for each in Operation.objects.get(pk=operation.pk).history]
    assert history == [
        ("started", "alice"),
        ("stopped: 2 of 2 failed again", ""),
        ("resumed", "bob"),
    ]


@pytest.mark.django_db
def test_it_stops_when_more_than_the_share_failed_again() -> None:
    """By itself, and not before."""
    ids = dead(100)
    operation = started(rate=20, stop_above=50)
    step(operation.pk)
    assert len(sent) == 20
    succeed(*ids[:10])
    fail(*ids[10:20])
    a_second_later(operation)
    step(operation.pk)
    assert state_of(operation) == Progress.RUNNING, "a half is not more than a half"
    before = len(sent)
    assert before >= 40
    fail(ids[20])
    a_second_later(operation)
    step(operation.pk)
    stopped = Operation.objects.get(pk=operation.pk)
    assert (stopped.state, stopped.stopped_why) == (Progress.STOPPED, "11 of 21 failed again")
    assert len(sent) == before


@pytest.mark.django_db
def test_the_rate_bounds_what_is_sent_in_a_second() -> None:
    dead(30)
    operation = started(rate=5)
    step(operation.pk)
    a_second_later(operation, seconds=0)
    step(operation.pk)
    assert len(sent) == 5, "no second has passed"
    a_second_later(operation)
    step(operation.pk)
    assert 10 <= len(sent) < 15


@pytest.mark.django_db
def test_a_pause_holds_it_and_a_resume_goes_on() -> None:
    dead(4)
    operation = started(rate=2)
    step(operation.pk)
    control.pause(operation.pk, actor="bob")
    a_second_later(operation)
    step(operation.pk)
    assert len(sent) == 2
    control.resume(operation.pk, actor="bob", drive=False)
    step(operation.pk)
    assert len(sent) == 4
    succeed(*sent)
    step(operation.pk)
    with pytest.raises(NotPossible, match=f"operation {operation.pk} is done: it cannot be paused"):
        control.pause(operation.pk, actor="bob")


@pytest.mark.django_db
def test_a_cancel_says_what_was_sent_and_nothing_follows() -> None:
    dead(5)
    operation = started(rate=2)
    step(operation.pk)
    succeed("m-0")
    said = control.cancel(operation.pk, actor="bob")
    assert said.line() == "2 sent (1 succeeded, 1 without an outcome yet), 0 refused, 3 not sent"
    a_second_later(operation)
    step(operation.pk)
    assert len(sent) == 2
    for change in (control.pause, control.resume, control.cancel):
        with pytest.raises(NotPossible, match="is cancelled"):
            change(operation.pk, actor="bob")


@pytest.mark.django_db
def test_one_dead_letter_that_breaks_its_replay_does_not_hold_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def breaks(message_id: str, *, retries: int | None) -> str:
        if message_id == "m-1":
            raise RuntimeError("a fault of ours")
        return publisher(message_id, retries=retries)

    monkeypatch.setattr(dlq_hooks, "republish", breaks)
    dead(3)
    operation = started()
    step(operation.pk)
    assert sent == ["m-0", "m-2"]
    assert DeadLetter.objects.get(message_id="m-1").state == State.OPEN
    assert "a fault of ours" in refusals(operation).lines()[0]


@pytest.mark.django_db(transaction=True)
def test_two_operators_who_choose_the_same_replay_each_once() -> None:
    dead(20)
    both = [started(), started()]
    at_once(4, *(lambda operation=operation: step(operation.pk) for operation in both))
    for operation in both:
        Operation.objects.filter(pk=operation.pk).update(lease_until=None)
        step(operation.pk)
    assert sorted(sent) == sorted(set(sent))
    assert len(sent) == 20
    outcomes = [numbers(operation.pk).by_outcome for operation in both]
    assert sum(each[Outcome.SENT] for each in outcomes) == 20
    assert sum(each[Outcome.REFUSED] for each in outcomes) == 20


@pytest.mark.django_db(transaction=True)
def test_two_workers_at_one_operation_send_no_larger_canary() -> None:
    dead(20)
    operation = started(canary=3)
    at_once(4, lambda: step(operation.pk))
    assert len(sent) == 3


@pytest.mark.django_db(transaction=True)
def test_a_started_operation_is_driven_by_one_message_at_a_time() -> None:
    dead(1)
    operation = control.start(
        selection.draft(Kind.REPLAY, DeadLetter.objects.all(), actor="alice"), actor="alice"
    )
    asked = OutboxMessage.objects.filter(task=driver.advance.name)
    assert asked.count() == 1
    control.resume(operation.pk, actor="bob")
    for _ in range(2):
        driver.advance(operation.pk, 0)
    assert asked.count() == 3, "the second of two messages for one turn asks for no further one"
    succeed("m-0")
    driver.advance(operation.pk, 1)
    assert asked.count() == 3
    assert state_of(operation) == Progress.DONE


@pytest.mark.django_db(transaction=True)
def test_an_operation_whose_message_was_lost_is_revived() -> None:
    dead(1)
    operation = started()
    assert driver.revive() == 0
    Operation.objects.update(started_at=timezone.now() - 2 * driver.STALLED_AFTER)
    assert driver.revive() == 1
    assert OutboxMessage.objects.filter(task=driver.advance.name, args=[operation.pk, 0]).count() == 1
