"""One message that ended badly is one dead letter, however often its end is reported."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, transaction

from dlq import error_info, record
from dlq.message import RawMessage
from dlq.models import Cause, DeadLetter, DeadLetterEvent, Happened, State
from tests.dlq.concurrency import at_once


def die(message_id: str = "m-1", **changes: Any) -> DeadLetter:
    """Report a journalled message as dead."""
    values: dict[str, Any] = {
        "generation": 1,
        "task": "orders.tasks.process_order",
        "args": [42],
        "kwargs": {},
        "queue": "critical",
        "headers": {"correlation_id": "c-1"},
        "exception": ValueError("no"),
        "error": "ValueError: no",
        "traceback": "",
        "attempts": 3,
        "worker": "w@host",
        **changes,
    }
    return record.on_dead(message_id=message_id, **values)


def receive(key: str = "m-1", body: bytes = b"[[1], {}, null]", **changes: Any) -> DeadLetter:
    """Record a message without a journal."""
    raw = RawMessage(body, "application/json", "utf-8", {"id": key}, {}, {"routing_key": "default"})
    values: dict[str, Any] = {
        "cause": Cause.FAILED,
        "error": "no",
        "task": "t",
        "args": [1],
        "kwargs": {},
        **changes,
    }
    return record.record_raw(message_key=key, raw=raw, **values)


def happened() -> list[str]:
    return list(DeadLetterEvent.objects.values_list("what", flat=True))


@pytest.mark.described("a dead letter keeps the data of its job as it was")
@pytest.mark.django_db
def test_a_dead_letter_keeps_the_original_call_and_says_what_went_wrong() -> None:
    dead_letter = die(args=[42], kwargs={"items": [{"sku": "ABC123", "quantity": 2}]})
    dead_letter.refresh_from_db()
    assert dead_letter.payload == {"args": [42], "kwargs": {"items": [{"sku": "ABC123", "quantity": 2}]}}
    assert (dead_letter.state, dead_letter.queue, dead_letter.attempts, dead_letter.failures) == (
        State.OPEN,
        "critical",
        3,
        1,
    )
    assert (dead_letter.exception, dead_letter.correlation_id) == ("ValueError", "c-1")
    assert happened() == [Happened.FAILED]


@pytest.mark.django_db
def test_the_same_death_reported_twice_is_one_failure() -> None:
    die()
    die()
    dead_letter = DeadLetter.objects.get()
    assert dead_letter.failures == 1
    assert happened() == [Happened.FAILED]


@pytest.mark.django_db
def test_the_same_raw_message_delivered_twice_is_one_failure() -> None:
    receive()
    receive()
    assert DeadLetter.objects.get().failures == 1


@pytest.mark.django_db
def test_a_second_failure_after_a_replay_reopens_the_dead_letter() -> None:
    """The same one, with its history."""
    dead_letter = die(error="first")
    DeadLetter.objects.update(state=State.REPLAYING, replayed_at=dead_letter.failed_at)
    die(generation=2, error="second", attempts=5)
    dead_letter.refresh_from_db()
    assert (dead_letter.state, dead_letter.failures, dead_letter.error, dead_letter.attempts) == (
        State.OPEN,
        2,
        "second",
        5,
    )
    assert dead_letter.failed_first_at < dead_letter.failed_at
    assert [(event.what, event.note) for event in DeadLetterEvent.objects.all()] == [
        (Happened.FAILED, "first"),
        (Happened.REOPENED, "second"),
    ]


@pytest.mark.django_db
def test_a_late_report_of_the_first_death_does_not_end_the_replay() -> None:
    dead_letter = die()
    DeadLetter.objects.update(state=State.REPLAYING, replayed_at=dead_letter.failed_at)
    die()
    dead_letter.refresh_from_db()
    assert dead_letter.state == State.REPLAYING


@pytest.mark.django_db
def test_another_message_with_a_replayed_id_gets_its_own_dead_letter() -> None:
    """While the first dead letter is under replay."""
    dead_letter = receive()
    DeadLetter.objects.update(state=State.REPLAYING, replayed_at=dead_letter.failed_at)
    other = receive(body=b"[[2], {}, null]")
    dead_letter.refresh_from_db()
    assert dead_letter.state == State.REPLAYING
    assert other.pk != dead_letter.pk
    assert other.message is not None
    assert other.message.body == b"[[2], {}, null]"


@pytest.mark.django_db
def test_a_late_copy_of_the_original_does_not_end_the_replay() -> None:
    """The copy of the replay does."""
    dead_letter = receive()
    DeadLetter.objects.update(state=State.REPLAYING, replayed_at=dead_letter.failed_at)
    receive()
    dead_letter.refresh_from_db()
    assert dead_letter.state == State.REPLAYING
    for _ in range(2):  # Reported twice, it is one failure.
        receive(body=b"[[1], {}, {}]", replayed=True)
    dead_letter.refresh_from_db()
    assert (dead_letter.state, dead_letter.failures) == (State.OPEN, 2)
    assert dead_letter.message is not None
    assert dead_letter.message.body == b"[[1], {}, null]"
    assert DeadLetter.objects.count() == 1


@pytest.mark.django_db
def test_success_resolves_the_dead_letter_and_a_second_report_changes_nothing() -> None:
    die()
    assert record.on_resolved("m-1")
    assert not record.on_resolved("m-1")
    assert not record.on_resolved("never-seen")
    dead_letter = DeadLetter.objects.get()
    assert dead_letter.state == State.RESOLVED
    assert dead_letter.closed_at is not None
    assert happened() == [Happened.FAILED, Happened.RESOLVED]


@pytest.mark.django_db
@pytest.mark.parametrize("closed", [State.RESOLVED, State.DISCARDED])
def test_a_closed_dead_letter_whose_message_dies_again_is_open_again(closed: str) -> None:
    dead_letter = die()
    DeadLetter.objects.update(state=closed, closed_at=dead_letter.failed_at, discard_reason="was wrong")
    die(generation=2)
    dead_letter.refresh_from_db()
    assert (dead_letter.state, dead_letter.closed_at, dead_letter.discard_reason) == (State.OPEN, None, "")


@pytest.mark.django_db
def test_what_jsonb_and_text_cannot_hold_is_kept_in_the_raw_message() -> None:
    body = b'[["a\\u0000b", NaN, 1e999, "\\ud800"], {}, null]'
    dead_letter = receive(
        body=body, args=["a\x00b", float("nan"), float("inf"), "\ud800", b"\xff"], error="bad \x00 \ud800"
    )
    dead_letter.refresh_from_db()
    assert dead_letter.args == ["a\\x00b", "nan", "inf", "\\ud800", "b'\\xff'"]
    assert dead_letter.error == "bad \\x00 \\ud800"
    assert dead_letter.message is not None
    assert dead_letter.message.body == body


@pytest.mark.django_db
def test_a_raw_message_survives_storage_byte_for_byte() -> None:
    raw = RawMessage(
        bytes(range(256)), "a/b", "binary", {"x": [None, {"y": 1.5}]}, {"priority": 3}, {"routing_key": "q"}
    )
    assert RawMessage.load(raw.dump()) == raw


def test_a_redelivery_has_the_same_digest_and_another_message_has_not() -> None:
    def message(body: bytes = b"x", **headers: Any) -> RawMessage:
        return RawMessage(body, headers=headers, properties={"delivery_tag": str(headers)})

    again = {"redelivered": True, "x-delivery-count": 2, "x-acquired-count": 3}
    assert message().digest == message(**again).digest
    assert message().digest != message(b"y").digest
    assert message().digest != message(id="1").digest


@pytest.mark.django_db
def test_a_huge_traceback_is_cut_in_the_middle() -> None:
    dead_letter = die(traceback="begin " + "x" * 200_000 + " end")
    assert len(dead_letter.traceback) < 60_000
    assert dead_letter.traceback.startswith("begin ")
    assert dead_letter.traceback.endswith(" end")


@pytest.mark.django_db
def test_a_huge_error_is_cut_in_dead_letter_and_history() -> None:
    dead_letter = die(error="begin " + "x" * 200_000)
    note = DeadLetterEvent.objects.get().note
    assert dead_letter.error == note
    assert dead_letter.error.startswith("begin xxx")
    assert dead_letter.error.endswith("(cut: 200006 characters)")
    assert len(dead_letter.error) < error_info.MAX_ERROR + 50


@pytest.mark.django_db
@pytest.mark.parametrize("error", ["no", "ValueError: no"])
def test_its_line_names_the_exception_once(error: str) -> None:
    assert die(error=error).summary == "ValueError: no"


@pytest.mark.django_db
def test_illegal_states_are_refused_by_the_database() -> None:
    dead_letter = die()
    for wrong in ({"state": "lost"}, {"state": "discarded"}, {"state": "resolved"}, {"failures": 0}):
        with pytest.raises(IntegrityError), transaction.atomic():
            DeadLetter.objects.filter(pk=dead_letter.pk).update(**wrong)


@pytest.mark.django_db(transaction=True)
def test_two_workers_recording_one_message_at_once_open_one_dead_letter() -> None:
    at_once(4, receive)
    assert DeadLetter.objects.count() == 1
    assert happened() == [Happened.FAILED]


@pytest.mark.django_db(transaction=True)
def test_a_second_failure_reported_from_several_places_is_one_failure() -> None:
    """The reports come at once."""
    die()
    at_once(4, lambda: die(generation=2))
    assert DeadLetter.objects.get().failures == 2
    assert happened() == [Happened.FAILED, Happened.REOPENED]
