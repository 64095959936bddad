"""What enqueueing refuses at the call, so that no worker, and no settlement, meets it at night."""

from __future__ import annotations

from typing import Any

import pytest
from kombu.message import Message
from pytest_mock import MockerFixture

import outbox
from dlq import validation
from outbox import dispatch
from outbox.errors import EnqueueError
from outbox.testing import staged
from tests.support import tasks

pytestmark = pytest.mark.django_db


def nested(levels: int, make: Any = lambda inner: [inner]) -> Any:
    value: Any = "]"
    for _ in range(levels):
        value = make(value)
    return value


def received() -> Message:
    """The one message that is due, as a worker receives it."""
    (sent,) = dispatch.mark("default", 10)
    return Message(
        body=sent.body(), headers=sent.wire_headers(), accept=["application/json"], **sent.amqp_properties()
    )


DEEPEST = [
    ("args", lambda more: tasks.note.s(nested(62 + more))),
    ("args", lambda more: tasks.note.s(nested(62 + more, lambda inner: {"[": inner}))),
    ("kwargs", lambda more: tasks.note.s(name=nested(62 + more))),
    ("headers", lambda more: tasks.note.s("a").set(headers={"own": nested(63 + more)})),
]


@pytest.mark.parametrize(("field", "make"), DEEPEST)
def test_the_deepest_that_is_enqueued_is_taken_by_a_worker_and_deeper_is_refused(
    field: str, make: Any
) -> None:
    with pytest.raises(EnqueueError, match=f"tasks.note: {field} is nested deeper"):
        outbox.enqueue(make(1))
    assert staged() == []
    outbox.enqueue(make(0))
    validation.check(received())


def test_the_limit_of_depth_is_no_stricter_than_a_workers(mocker: MockerFixture) -> None:
    mocker.patch("outbox.producer._depth", return_value=0)
    for _, make in DEEPEST:
        outbox.enqueue(make(1))
        with pytest.raises(validation.Malformed, match="nested deeper"):
            validation.check(received())


def test_many_flat_values_and_brackets_in_texts_are_not_deep() -> None:
    outbox.enqueue(tasks.note.s([["[" * 100, '"[{'], *([[], {}] * 100)]))
    assert len(staged()) == 1
