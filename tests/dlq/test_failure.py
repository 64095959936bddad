"""An ending that the database will not take as it is becomes a shorter dead letter, and gives its slot back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import IntegrityError, connection
from kombu.asynchronous.timer import Timer

from dlq.message import RawMessage
from dlq.models import Cause, DeadLetter, DeadLetterEvent, State
from dlq.worker import failure as ending_module
from dlq.worker.failure import MAX_REFUSALS, Ending
from dlq.worker.pending_acks import Shelf
from tests.dlq.preflight import obstacle

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def refusing(condition: str) -> Iterator[None]:
    """The database refuses every dead letter for which the condition is false."""
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE dlq_deadletter ADD CONSTRAINT test_refusal CHECK ({condition})")
        try:
            yield
        finally:
            cursor.execute("ALTER TABLE dlq_deadletter DROP CONSTRAINT test_refusal")


def ending() -> Ending:
    raw = RawMessage(
        b"[[1], {}, null]", "application/json", "utf-8", {"id": "m-1"}, {}, {"routing_key": "orders"}
    )
    return Ending(
        raw=raw,
        fields=raw.headers,
        exception=ValueError("no"),
        error="no",
        cause=Cause.FAILED,
        task="tests.support.tasks.note",
        args=[1],
        kwargs={},
    )


def test_a_message_refused_for_its_arguments_can_be_replayed() -> None:
    """Its dead letter keeps the message."""
    with refusing("args IS NULL"):
        refused = ending()
        for _ in range(MAX_REFUSALS - 1):
            with pytest.raises(IntegrityError):
                refused.record()
        refused.record()
        dead_letter = DeadLetter.objects.get()
        assert dead_letter.message == refused.raw
        assert dead_letter.error.startswith("no (not recorded in full: 15 bytes, sha256 ")
        DeadLetter.objects.update(queue="default")
        dead_letter.refresh_from_db()
        assert obstacle(dead_letter) == ""


def test_a_message_refused_for_its_size_cannot_be_replayed() -> None:
    """Its dead letter has the size and the digest."""
    with refusing("octet_length(raw) < 10"):
        refused = ending()
        refused.record(last_try=True)
        refused.record(last_try=True)
        dead_letter = DeadLetter.objects.get()
    assert (dead_letter.message_id, dead_letter.state, dead_letter.cause, dead_letter.failures) == (
        "m-1",
        State.OPEN,
        "failed",
        1,
    )
    assert (dead_letter.raw, dead_letter.raw_digest) == (None, refused.raw.digest)
    assert f"15 bytes, sha256 {refused.raw.digest}" in dead_letter.error
    assert DeadLetterEvent.objects.count() == 1
    assert obstacle(dead_letter) == "m-1: its message could not be kept"


def test_a_record_that_is_refused_for_ever_is_acknowledged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It does not stay among the records that are tried again."""
    shelf, said = Shelf(), list[str]()
    shelf.use_timer(Timer())
    monkeypatch.setattr(ending_module, "shelf", shelf)
    with refusing("octet_length(raw) < 10"):
        ending().conclude(acknowledge=lambda: said.append("ack"), requeue=lambda: said.append("requeue"))
        tries = 1
        while len(shelf):
            assert said == []
            shelf.retry()
            tries += 1
    assert (tries, said, DeadLetter.objects.count()) == (MAX_REFUSALS, ["ack"], 1)
