"""A message of a producer that knows no outbox, which is to run again: it becomes a row, or its failure is told."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from celery.exceptions import Retry

from outbox.errors import NotAdopted
from outbox.models import OutboxMessage
from outbox.testing import drain
from tests.support import effects, tasks

pytestmark = pytest.mark.django_db


def deliver(message_id: str, name: str, **headers: Any) -> None:
    """What the worker does with a message without a journal."""
    task = tasks.always_unavailable
    task.push_request(
        id=message_id, args=[name], delivery_info={"routing_key": "low"}, called_directly=False, **headers
    )
    try:
        task(name)
    finally:
        task.pop_request()


def test_it_keeps_its_queue_and_its_producers_headers_but_not_the_brokers() -> None:
    message_id = str(uuid.uuid4())
    with pytest.raises(Retry):
        deliver(message_id, "a", traceparent="00-1", redelivered=True, unspeakable=object())
    row = OutboxMessage.objects.get(message_id=message_id)
    assert (row.queue, row.headers, row.replays) == ("low", {"traceparent": "00-1"}, 0)


@pytest.mark.parametrize("retries", [0, 1])
def test_earlier_runs_count_among_those_that_the_task_allows(retries: int) -> None:
    with pytest.raises(Retry):
        deliver(str(uuid.uuid4()), "a", retries=retries)
    drain()
    assert retries + effects.count("a") == 1 + tasks.always_unavailable.max_retries


def test_a_second_delivery_of_the_same_copy_adds_nothing() -> None:
    message_id = str(uuid.uuid4())
    for redelivered in (False, True):
        with pytest.raises(Retry):
            deliver(message_id, "a", redelivered=redelivered)
    assert OutboxMessage.objects.count() == 1


def test_another_message_with_the_same_id_is_not_taken_for_it() -> None:
    message_id = str(uuid.uuid4())
    with pytest.raises(Retry):
        deliver(message_id, "a")
    with pytest.raises(NotAdopted) as refused:
        deliver(message_id, "b")
    assert isinstance(refused.value.__cause__, ConnectionError)


def test_a_message_that_has_ended_before_does_not_run_again() -> None:
    message_id = str(uuid.uuid4())
    with pytest.raises(Retry):
        deliver(message_id, "a")
    drain()
    with pytest.raises(NotAdopted):
        deliver(message_id, "a")


def test_a_replay_is_told_from_the_original() -> None:
    """Its end is reported to dlq/."""
    message_id = str(uuid.uuid4())
    with pytest.raises(Retry):
        deliver(message_id, "a", **{"dlq-replay": message_id})
    assert OutboxMessage.objects.get().replays == 1
    with pytest.raises(NotAdopted):
        deliver(message_id, "a")
