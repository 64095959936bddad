"""An operation sends what was chosen when it was asked, and nothing else; it can be watched, held and ended."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from dlq import replay, unanswered
from dlq.models import Cause, DeadLetter, DeadLetterEvent, Operation, OperationItem, State
from dlq.operations import control, driver, selection
from dlq.operations.control import NotPossible
from dlq.operations.models import Kind, Progress
from dlq.operations.progress import numbers, refusals
from dlq.operations.step import step
from dlq.queue import DeadLetterQueue, NoSuchDeadLetter
from outbox import pausing
from outbox.models import OutboxMessage
from tests.dlq.operating import dead, fail, sent, started, state_of, succeed
from tests.dlq.test_record import die, receive

pytestmark = pytest.mark.usefixtures("journal_of_every_message")


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


@pytest.mark.django_db
def test_the_preflight_names_the_pause_that_a_replay_waits_for() -> None:
    die("m-0", queue="low")
    die("m-1", queue="default")
    operation = selection.draft(Kind.REPLAY, DeadLetter.objects.all(), actor="alice")
    pausing.pause("low", actor="bob")
    assert selection.preflight(operation) == {selection.READY: 1, f"{selection.PAUSED} queue low": 1}
    pausing.pause_task("orders.tasks.process_order", actor="bob")
    held = f"{selection.PAUSED} task orders.tasks.process_order"
    assert selection.preflight(operation) == {selection.READY: 0, held: 2}
    discard = selection.draft(Kind.DISCARD, DeadLetter.objects.all(), actor="alice")
    assert selection.preflight(discard) == {selection.READY: 2}


@pytest.mark.django_db
def test_the_page_says_that_the_driver_waits_for_a_resume(admin_client: Client) -> None:
    die()
    operation = selection.draft(Kind.REPLAY, DeadLetter.objects.all(), actor="alice")
    url = f"/admin/dlq/operation/{operation.pk}/change/"
    assert "the resume of" not in admin_client.get(url).content.decode()
    pausing.pause("default", actor="bob")
    assert "Nothing is sent before the resume of queue default" in admin_client.get(url).content.decode()
    control.start(operation, actor="alice")
    assert "Waits for the resume of queue default" in admin_client.get(url).content.decode()


@pytest.mark.django_db
def test_the_command_says_how_many_wait_for_a_resume(capsys: pytest.CaptureFixture[str]) -> None:
    dead(2)
    pausing.pause_task("orders.tasks.process_order", actor="bob")
    call_command("dlq", "replay", "--all")
    said = capsys.readouterr().out
    assert f"2 {selection.PAUSED} task orders.tasks.process_order" in said
    assert "2 sent again, 0 refused" in said


def circuit_of(task: str) -> str:
    return "gateway" if task == "orders.tasks.process_order" else ""


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
def test_an_operation_is_deleted_a_year_after_its_end() -> None:
    """And none that has not ended."""
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
