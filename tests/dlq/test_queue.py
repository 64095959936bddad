"""The dead-letter queue that the documents describe: add, all, peek, replay, purge."""

from __future__ import annotations

import re
from collections.abc import Callable
from unittest.mock import MagicMock

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pytest_mock import MockerFixture

from dlq.models import Cause, DeadLetter, DeadLetterEvent, Happened, State
from dlq.queue import DeadLetterQueue, DeadLetterQueueFull, NoSuchDeadLetter
from dlq.replay import NotDiscardable, NotReplayable
from orders.models import Customer, Order
from tests.dlq.concurrency import at_once
from tests.dlq.test_record import die, receive

pytestmark = pytest.mark.django_db
PROCESS = "orders.services.OrderService.process"


def add(
    job_id: str = "test-1", payload: object = None, queue: str = "orders", error: str = "Timeout"
) -> None:
    DeadLetterQueue.add(
        job_id=job_id, queue=queue, payload={"order_id": 1} if payload is None else payload, error=error
    )


@pytest.mark.described("`DeadLetterQueue.all` shows what was added")
def test_contents_can_be_inspected() -> None:
    add("test-1")
    jobs = DeadLetterQueue.all()
    assert len(jobs) == 1
    assert any(job["job_id"] == "test-1" for job in jobs)


@pytest.mark.described("a dead letter keeps the data of its job as it was")
def test_the_original_payload_is_preserved() -> None:
    original = {"order_id": 42, "customer_id": 7, "amount": 9999, "items": [{"sku": "ABC123", "quantity": 2}]}
    add("dict", original)
    add("list", [999])
    add("empty", {})
    assert {entry.job_id: entry.payload for entry in DeadLetterQueue.peek()} == {
        "dict": original,
        "list": [999],
        "empty": {},
    }


def test_an_integer_too_long_for_json_is_kept_as_text() -> None:
    """With every digit."""
    giant, longest = 10**5000 + 7, 10**4300 - 1
    add("giant", {"n": giant, "m": [-giant, longest], giant: True})
    (entry,) = DeadLetterQueue.peek()
    assert int(entry.payload["n"], 16) == giant
    assert [int(entry.payload["m"][0], 16), entry.payload["m"][1]] == [-giant, longest]
    assert entry.payload[hex(giant)] is True


@pytest.mark.described("`peek(count=20)`: the last failures first")
def test_peek_shows_the_last_failures_first() -> None:
    for number in range(5):
        add(f"job-{number}")
    entries = DeadLetterQueue.peek(count=2)
    assert [entry.job_id for entry in entries] == ["job-4", "job-3"]
    assert entries[0].error == "Timeout"
    assert entries[0].task_name == ""


@pytest.mark.described("`DeadLetterQueue.replay` calls `OrderService.process(order_id=42)`")
def test_a_job_can_be_replayed(mocker: MockerFixture) -> None:
    process = mocker.patch(PROCESS, return_value={"status": "success"})
    add("test-replay", {"order_id": 42}, error="Transient network error")
    assert DeadLetterQueue.replay("test-replay") == "test-replay"
    process.assert_called_once_with(order_id=42)
    assert DeadLetterQueue.all() == []
    assert DeadLetter.objects.get().state == State.RESOLVED


@pytest.mark.described("`replay(task_id=, retries=3)` returns the id under which it runs")
def test_a_job_can_be_replayed_under_the_name_task_id(mocker: MockerFixture) -> None:
    process = mocker.patch(PROCESS)
    add("abc-123")
    assert DeadLetterQueue(max_size=10_000).replay(task_id="abc-123", retries=3) == "abc-123"
    process.assert_called_once_with(order_id=1)
    for both in ({}, {"job_id": "a", "task_id": "a"}):
        with pytest.raises(TypeError, match="one id, as job_id or as task_id"):
            DeadLetterQueue.replay(**both)


def test_a_job_whose_arguments_are_a_list_can_be_replayed(mocker: MockerFixture) -> None:
    charge = mocker.patch("payments.gateway.PaymentGateway.charge", return_value=MagicMock(id="txn_123"))
    customer = Customer.objects.create(name="Ada", email="ada@example.com")
    order = Order.objects.create(customer=customer, total_cents=9999)
    add("positional", [order.pk])
    add("by-name", {"order_id": order.pk})
    for job_id in ("positional", "by-name"):
        assert DeadLetterQueue.replay(job_id) == job_id
    order.refresh_from_db()
    assert (order.status, charge.call_count) == ("completed", 1)
    assert DeadLetterQueue.all() == []


@pytest.mark.parametrize("job_id", ["a\x00", "a\udcff"])
def test_a_job_is_replayed_by_the_id_it_was_added_with(mocker: MockerFixture, job_id: str) -> None:
    process = mocker.patch(PROCESS)
    with pytest.raises(NoSuchDeadLetter, match="a"):
        DeadLetterQueue.replay(job_id)
    add(job_id)
    DeadLetterQueue.replay(job_id)
    process.assert_called_once_with(order_id=1)


@pytest.mark.described("`replay(task_id=, retries=3)` returns the id under which it runs")
def test_a_replay_is_retried_as_often_as_it_may(mocker: MockerFixture) -> None:
    process = mocker.patch(
        PROCESS, side_effect=[OSError("1"), OSError("2"), OSError("3"), {"status": "success"}]
    )
    add()
    DeadLetterQueue.replay("test-1", retries=3)
    assert process.call_count == 4


def test_a_replay_that_fails_reopens_the_dead_letter_and_says_so(mocker: MockerFixture) -> None:
    mocker.patch(PROCESS, side_effect=OSError("still down"))
    add()
    with pytest.raises(NotReplayable, match="OSError: still down"):
        DeadLetterQueue.replay("test-1", retries=1)
    dead_letter = DeadLetter.objects.get()
    assert (dead_letter.state, dead_letter.failures, dead_letter.attempts, dead_letter.exception) == (
        State.OPEN,
        2,
        2,
        "OSError",
    )


def test_a_dead_letter_is_not_replayed_twice(mocker: MockerFixture) -> None:
    process = mocker.patch(PROCESS)
    add()
    DeadLetterQueue.replay("test-1")
    with pytest.raises(NotReplayable, match="test-1 is resolved, not open"):
        DeadLetterQueue.replay("test-1")
    process.assert_called_once()


def test_replaying_a_job_without_a_handler_says_why() -> None:
    """So does the replay of an unknown job."""
    with pytest.raises(NoSuchDeadLetter, match="nobody"):
        DeadLetterQueue.replay("nobody")
    add("homeless", queue="no-such-queue")
    with pytest.raises(NotReplayable, match="DLQ_HANDLERS names no handler for the queue 'no-such-queue'"):
        DeadLetterQueue.replay("homeless")
    assert DeadLetter.objects.get().state == State.OPEN


@pytest.mark.described("`DeadLetterQueue(max_size=10_000)`: a bound on what is added")
def test_the_queue_is_bounded_and_says_so() -> None:
    queue = DeadLetterQueue(max_size=2)
    for job_id in ("a", "b", "a"):  # the same job again takes no more room
        queue.add(job_id=job_id, queue="orders", payload={}, error="x")
    with pytest.raises(DeadLetterQueueFull, match="2 open dead letters"):
        queue.add(job_id="c", queue="orders", payload={}, error="x")
    assert DeadLetterQueue.max_size == 10_000
    queue.purge(reason="test over")
    queue.add(job_id="c", queue="orders", payload={}, error="x")


@pytest.mark.parametrize("job_id", ["", "x" * 256])
def test_what_cannot_be_a_job_id_is_refused(job_id: str) -> None:
    with pytest.raises(ValueError, match="1 to 255 characters"):
        add(job_id)


@pytest.mark.described("`purge()` returns how many it discarded")
def test_a_purge_without_a_word_records_that_it_was_one() -> None:
    add("a")
    assert DeadLetterQueue.purge() == 1
    assert DeadLetter.objects.get().discard_reason == "purged with all open dead letters"


def test_a_purge_takes_no_empty_reason_and_keeps_the_record() -> None:
    add("a")
    add("b")
    with pytest.raises(NotDiscardable, match="needs a reason"):
        DeadLetterQueue.purge(reason=" ")
    assert DeadLetterQueue.purge(reason="customer cancelled") == 2
    assert DeadLetterQueue.all() == []
    assert set(DeadLetter.objects.values_list("state", "discard_reason")) == {
        ("discarded", "customer cancelled")
    }


def test_a_closed_job_that_is_added_again_is_open_again() -> None:
    add()
    DeadLetterQueue.purge(reason="thought it was over")
    add(error="not over")
    assert [(job["job_id"], job["error"], job["failures"]) for job in DeadLetterQueue.all()] == [
        ("test-1", "not over", 2)
    ]


@pytest.mark.django_db(transaction=True)
def test_the_bound_holds_for_those_who_add_at_once() -> None:
    queue = DeadLetterQueue(max_size=3)
    numbers = iter(range(8))
    outcomes = at_once(
        8, lambda: queue.add(job_id=f"job-{next(numbers)}", queue="orders", payload={}, error="x")
    )
    assert len([outcome for outcome in outcomes if isinstance(outcome, DeadLetterQueueFull)]) == 5
    assert DeadLetter.objects.count() == 3


@pytest.mark.parametrize("fail", [die, receive])
def test_a_failure_the_application_added_itself_is_one_dead_letter(
    fail: Callable[[str], DeadLetter],
) -> None:
    """The failure of its message is recorded in the same dead letter."""
    add("m-1", error="given up")
    dead_letter = fail("m-1")
    assert DeadLetter.objects.count() == 1
    dead_letter.refresh_from_db()
    assert (dead_letter.cause, dead_letter.failures, dead_letter.state) == (Cause.FAILED, 1, State.OPEN)
    assert dead_letter.generation is not None or dead_letter.message is not None, "a replay has the message"
    assert list(DeadLetterEvent.objects.values_list("what", "note")) == [(Happened.FAILED, "given up")]
    fail("m-1")
    assert DeadLetter.objects.get().failures == 1


@pytest.mark.parametrize("fail", [die, receive])
def test_a_dead_letter_added_again_is_replayed_with_the_new_payload(
    fail: Callable[[str], DeadLetter], mocker: MockerFixture
) -> None:
    """It was closed before it was added again."""
    process = mocker.patch(PROCESS)
    fail("m-1")
    DeadLetterQueue.purge(reason="thought it was over")
    add("m-1", {"order_id": 7})
    DeadLetterQueue.replay("m-1")
    process.assert_called_once_with(order_id=7)


def test_a_list_of_dead_letters_loads_no_message_and_no_traceback() -> None:
    receive("m-1")
    for look in (DeadLetterQueue.all, DeadLetterQueue.peek):
        with CaptureQueriesContext(connection) as queries:
            assert len(look()) == 1
        (query,) = queries.captured_queries
        assert not {'"raw"', '"traceback"', '"headers"'} & set(re.findall(r'"\w+"', query["sql"]))
