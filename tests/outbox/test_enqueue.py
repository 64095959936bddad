"""What enqueueing refuses at the call, so that no worker, and no settlement, meets it at night."""

from __future__ import annotations

import uuid
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from kombu.message import Message
from pytest_mock import MockerFixture

import outbox
from dlq.worker import validation
from outbox.context import Run, running
from outbox.errors import EnqueueError
from outbox.relay import queries
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
    (sent,) = queries.mark("default", 10)
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
def test_the_deepest_allowed_argument_reaches_a_worker(field: str, make: Any) -> None:
    """A deeper one is refused."""
    with pytest.raises(EnqueueError, match=f"tasks.note: {field} is nested deeper"):
        outbox.enqueue(make(1))
    assert staged() == []
    outbox.enqueue(make(0))
    validation.check(received())


def test_the_limit_of_depth_is_no_stricter_than_a_workers(mocker: MockerFixture) -> None:
    mocker.patch("outbox.payload._depth", return_value=0)
    for _, make in DEEPEST:
        outbox.enqueue(make(1))
        with pytest.raises(validation.Malformed, match="nested deeper"):
            validation.check(received())


@pytest.mark.parametrize("kind", ["datetime", "of ours"])
def test_what_kombu_would_take_for_an_object_of_its_own_is_refused(kind: str) -> None:
    with pytest.raises(EnqueueError, match="args holds the keys __type__ and __value__"):
        outbox.enqueue(tasks.note.s({"__type__": kind, "__value__": "2026-01-01"}))
    outbox.enqueue(tasks.note.s('"__type__" and "__value__"'))
    assert received().decode()[0] == ['"__type__" and "__value__"']


def test_many_flat_values_and_brackets_in_texts_are_not_deep() -> None:
    outbox.enqueue(tasks.note.s([["[" * 100, '"[{'], *([[], {}] * 100)]))
    assert len(staged()) == 1


MISTAKES: list[tuple[str, dict[str, Any]]] = [
    ("ordering_key", {"ordering_key": 5}),
    ("ordering_key", {"ordering_key": 0}),
    ("ordering_key", {"ordering_key": "a\ud800"}),
    ("dedup_key", {"dedup_key": "a\udfff"}),
    ("dedup_key", {"dedup_key": "a\x00"}),
    ("dedup_key", {"dedup_key": "a" * 256}),
    ("correlation_id", {"correlation_id": uuid.uuid4()}),
    ("correlation_id", {"correlation_id": "\ud800"}),
    ("delay", {"delay": True}),
    ("delay", {"delay": timedelta(seconds=3)}),
    ("queue", {"queue": 5}),
]


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(("argument", "options"), MISTAKES)
def test_a_mistake_is_refused_by_name_at_the_call(
    argument: str, options: dict[str, Any], inside: bool
) -> None:
    """Also inside of a run."""
    run = Run(uuid.uuid4(), generation=1, attempt=1, correlation_id="")
    with running(run) if inside else nullcontext(), pytest.raises(EnqueueError, match=argument):
        outbox.enqueue(tasks.note.s("a"), **options)
    assert staged() == []
    assert not run.children


@pytest.mark.parametrize(
    ("argument", "options"),
    [("task_id", {"task_id": "a\ud800"}), ("headers", {"headers": 5}), ("delay", {"countdown": True})],
)
def test_a_mistake_in_what_celery_calls_an_option_is_refused_as_well(
    argument: str, options: dict[str, Any]
) -> None:
    with pytest.raises(EnqueueError, match=argument):
        tasks.note.apply_async(args=["a"], **options)


def test_an_events_ordering_key_is_refused_for_what_it_is(
    settings: LazySettings, mocker: MockerFixture
) -> None:
    mocker.patch.object(tasks.ordered, "ordered", True)
    settings.OUTBOX_EVENTS = {"it.happened": ["tests.support.tasks.ordered"]}
    with pytest.raises(EnqueueError, match="ordering_key"):
        outbox.emit("it.happened", ordering_key=0, name="a")  # type: ignore[arg-type]
