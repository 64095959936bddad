"""An operation sends what was chosen when it was asked, and nothing else; it can be watched, held and ended."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from dlq import record, replay, unanswered
from dlq.models import Cause, DeadLetter, DeadLetterEvent, Operation, OperationItem, State
from dlq.operations import control, driver, selection
from dlq.operations.control import NotPossible
from dlq.operations.models import Kind, Outcome, Progress
from dlq.operations.progress import numbers, refusals
from dlq.operations.step import step
from dlq.queue import DeadLetterQueue, NoSuchDeadLetter
from outbox import dlq_hooks
from outbox.models import OutboxMessage
from tests.dlq.concurrency import at_once
from tests.dlq.test_record import die, receive

sent: list[str] = []


def publisher(message_id: str, *, retries: int | None) -> str:
    """A journal that has every message."""
    sent.append(message_id)
    return message_id


@pytest.fixture(autouse=True)
def journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dlq_hooks, "republish", publisher)
    monkeypatch.setattr(dlq_hooks, "discard", lambda message_id: sent.append(f"-{message_id}"))
    sent.clear()


def dead(count: int) -> list[str]:
    return [die(f"m-{number}").message_id for number in range(count)]


def started(kind: Kind = Kind.REPLAY, **options: Any) -> Operation:
    """An operation of every dead letter that there is, and confirmed."""
    operation = selection.draft(kind, DeadLetter.objects.all(), actor="alice")
    return control.start(operation, actor="alice", drive=False, **options)


def succeed(*message_ids: str) -> None:
    for message_id in message_ids:
        record.on_resolved(message_id)


def fail(*message_ids: str) -> None:
    for message_id in message_ids:
        die(message_id, generation=1 + DeadLetter.objects.get(message_id=message_id).failures)


def a_second_later(operation: Operation, seconds: float = 1) -> None:
    """As if the last step had been a second ago."""
    past = timezone.now() - timedelta(seconds=seconds)
    Operation.objects.filter(pk=operation.pk, stepped_at__isnull=False).update(stepped_at=past)


def state_of(operation: Operation) -> str:
    return Operation.objects.values_list("state", flat=True).get(pk=operation.pk)


@pytest.mark.django_db
def test_what_dies_or_fails_again_after_the_question_is_not_sent() -> None:
    dead(3)
    operation = selection.draft(Kind.REPLAY, DeadLetter.objects.all(), actor="alice", chosen_by="all")
    assert operation.selected == 3
    die("late")
    fail("m-1")
    control.start(operation, actor="alice", drive=False)
    step(operation.pk)
    assert sent == ["m-0", "m-2"]
    assert DeadLetter.objects.get(message_id="late").state == State.OPEN
    assert refusals(operation).lines() == ["1: has failed again since it was chosen (m-1)"]


@pytest.mark.django_db
def test_sent_is_not_succeeded_and_done_is_when_every_outcome_is_known() -> None:
    dead(3)
    operation = started(stop_above=100)
    assert step(operation.pk) is not None
    assert numbers(operation.pk).line() == "3 sent (3 without an outcome yet), 0 refused, 0 not sent"
    succeed("m-0", "m-1")
    fail("m-2")
    assert step(operation.pk) is None
    assert state_of(operation) == Progress.DONE
    assert numbers(operation.pk).line() == "3 sent (2 succeeded, 1 failed again), 0 refused, 0 not sent"
    events = DeadLetterEvent.objects.filter(what="replayed").values_list("actor", "note")
    assert set(events) == {("alice", f"operation {operation.pk}")}


@pytest.mark.django_db
def test_the_preflight_says_what_would_come_of_each() -> None:
    dead(6)
    DeadLetter.objects.filter(message_id="m-5").update(task="renamed.away")
    receive("garbage", cause=Cause.MALFORMED)
    operation = selection.draft(Kind.REPLAY, DeadLetter.objects.all(), actor="alice")
    succeed("m-0")
    replay.replay(DeadLetter.objects.get(message_id="m-1").pk)
    fail("m-2")
    DeadLetter.objects.filter(message_id="m-3").delete()
    assert selection.preflight(operation) == {
        selection.READY: 1,
        selection.CLOSED: 1,
        selection.UNDER_WAY: 1,
        selection.AGAIN: 1,
        selection.NO_TASK: 1,
        selection.UNREAD: 1,
        selection.DELETED: 1,
    }


@pytest.mark.django_db
def test_the_preflight_names_the_open_circuit_in_the_way(settings: Any) -> None:
    settings.DLQ_CIRCUITS = "tests.dlq.test_operations.circuit_of"
    die()
    operation = selection.draft(Kind.REPLAY, DeadLetter.objects.all(), actor="alice")
    assert selection.preflight(operation) == {selection.READY: 0, "circuit open: gateway": 1}


def circuit_of(task: str) -> str:
    return "gateway" if task == "orders.tasks.process_order" else ""


@pytest.mark.django_db
def test_a_canary_is_waited_for_and_then_each_step_sends_as_many_as_all_before() -> None:
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
def test_a_canary_that_fails_again_stops_the_operation_and_a_resume_sends_another_canary() -> None:
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
def test_it_stops_by_itself_when_more_than_the_share_failed_again_and_not_before() -> None:
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
def test_a_discard_needs_a_reason_and_closes_what_was_chosen() -> None:
    dead(3)
    operation = selection.draft(Kind.DISCARD, DeadLetter.objects.all(), actor="alice")
    with pytest.raises(NotPossible, match="a discard needs a reason"):
        control.start(operation, actor="alice", reason=" ")
    control.start(operation, actor="alice", reason="a flood", drive=False)
    assert step(operation.pk) is None
    assert numbers(operation.pk).line() == "3 discarded, 0 refused, 0 not discarded"
    assert set(DeadLetter.objects.values_list("state", "discard_reason")) == {("discarded", "a flood")}
    assert sorted(sent) == ["-m-0", "-m-1", "-m-2"]


@pytest.mark.django_db
@pytest.mark.parametrize("options", [{"canary": -1}, {"rate": -1}, {"stop_above": 101}, {"retries": -1}])
def test_a_number_that_makes_no_sense_starts_nothing(options: dict[str, int]) -> None:
    dead(1)
    with pytest.raises(NotPossible, match="at least 0"):
        started(**options)
    assert Operation.objects.get().state == Progress.DRAFTED


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


@pytest.mark.django_db
def test_an_operation_is_deleted_a_year_after_its_end_and_none_before_its_end() -> None:
    dead(2)
    ended, running = started(), started()
    step(ended.pk)
    succeed("m-0", "m-1")
    step(ended.pk)
    long_ago = timezone.now() - timedelta(days=366)
    Operation.objects.update(started_at=long_ago)
    unanswered.reopen()
    assert state_of(ended) == Progress.DONE
    Operation.objects.filter(pk=ended.pk).update(ended_at=long_ago)
    unanswered.reopen()
    assert Operation.objects.get() == running
    assert not OperationItem.objects.exclude(operation=running).exists()


@pytest.mark.django_db
def test_a_selection_is_one_statement_however_many_are_chosen(
    django_assert_num_queries: DjangoAssertNumQueries, figure: Callable[[str], None]
) -> None:
    DeadLetter.objects.bulk_create(
        DeadLetter(message_id=f"m-{n}", cause=Cause.FAILED, fingerprint="f", generation=1, raw=b"x" * 1000)
        for n in range(10_000)
    )
    begun = timezone.now()
    with django_assert_num_queries(6):
        operation = selection.draft(Kind.REPLAY, DeadLetter.objects.filter(state=State.OPEN), actor="alice")
    seconds = (timezone.now() - begun).total_seconds()
    figure(f"{10_000 / seconds:,.0f} dead letters chosen a second")
    assert operation.selected == OperationItem.objects.count() == 10_000
    assert seconds < 5, "2,000 a second at least"


@pytest.mark.django_db
def test_the_queue_has_the_same_verbs() -> None:
    dead(3)
    DeadLetterQueue.discard("m-0", "of no use", actor="alice")
    operation = DeadLetterQueue.operate(
        "replay", DeadLetter.objects.filter(state=State.OPEN), actor="alice", canary=1, reason="mended"
    )
    assert OutboxMessage.objects.filter(task=driver.advance.name, args=[operation.pk, 0]).count() == 1
    step(operation.pk)
    assert sent == ["-m-0", "m-1"]
    with pytest.raises(NoSuchDeadLetter):
        DeadLetterQueue.discard("m-9", "of no use")
