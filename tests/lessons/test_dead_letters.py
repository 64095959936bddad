"""Lesson "dead letters": a process is killed in the middle of its job, and the database is down while a job fails."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import MagicMock

import pytest
from billiard.einfo import ExceptionInfo
from celery import Celery
from celery.exceptions import WorkerLostError
from celery.worker.request import Request as CelerysRequest
from django.db import OperationalError
from kombu.message import Message
from pytest_mock import MockerFixture

from dlq.models import DeadLetter, State
from dlq.queue import DeadLetterQueue
from dlq.worker.pending_acks import Shelf
from dlq.worker.request import Request
from lab.lessons.dead_letters import Recorded
from outbox.models import OutboxMessage
from outbox.testing import drain
from payments.gateway import InvalidRequest
from tests.orders.conftest import place, quiet

pytestmark = pytest.mark.django_db(transaction=True)


def fail(order_id: int) -> None:
    raise ValueError(f"order {order_id} cannot be processed")


def received(kind: type[CelerysRequest]) -> CelerysRequest:
    """A message as a worker holds it, acknowledged late, of a task that records its failures in its hook."""
    app = Celery("lesson", set_as_current=False)
    task = app.task(fail, name="lesson.fail", base=Recorded, acks_late=True)
    sent = app.amqp.as_task_v2("message-1", task.name, args=(7,))
    message = Message(
        json.dumps(sent.body),
        content_type="application/json",
        content_encoding="utf-8",
        headers=sent.headers,
        properties=sent.properties,
        delivery_info={"routing_key": "orders"},
    )
    return kind(message, hostname="worker", app=app, task=task, eventer=MagicMock())


def killed() -> ExceptionInfo:
    """What the worker's parent reports of a process that was killed."""
    try:
        raise WorkerLostError("signal 9 (SIGKILL)")
    except WorkerLostError:
        return ExceptionInfo()


def test_wrong_on_failure_is_not_called_for_a_killed_process() -> None:
    message = received(CelerysRequest)

    message.on_failure(killed())

    assert message.acknowledged
    assert DeadLetterQueue.all() == []


def test_wrong_a_failure_during_a_database_outage_is_lost(mocker: MockerFixture) -> None:
    """With its message."""
    mocker.patch("dlq.queue.DeadLetterQueue.add", side_effect=OperationalError("down"))
    message = received(CelerysRequest)

    with pytest.warns(RuntimeWarning, match="down"):
        message.execute()

    assert message.acknowledged


def test_right_an_ending_is_recorded_first_and_acknowledged_afterwards(
    mocker: MockerFixture, settings: Any
) -> None:
    settings.DLQ_MAX_LOST_RUNS = 1
    shelf = Shelf()
    shelf.use_timer(MagicMock())
    mocker.patch("dlq.worker.failure.shelf", shelf)
    down = mocker.patch("dlq.record.record_raw", side_effect=OperationalError("down"))
    message = received(Request)

    message.on_failure(killed())
    assert not message.acknowledged

    mocker.stop(down)
    shelf.retry()

    (entry,) = DeadLetterQueue.peek()
    assert (entry.job_id, entry.task_name, entry.payload) == ("message-1", "lesson.fail", [7])
    assert message.acknowledged


def test_right_a_dead_letter_stays_until_a_replay_succeeds(
    busy_shop: None, charge: MagicMock, mocker: MockerFixture
) -> None:
    """The row of its message is dead as long."""
    quiet(mocker)
    place()
    charge.side_effect = InvalidRequest("no such parameter")

    drain()
    message, dead_letter = OutboxMessage.objects.get(status="dead"), DeadLetter.objects.get()
    assert (dead_letter.message_id, dead_letter.state) == (str(message.message_id), State.OPEN)

    charge.side_effect = None
    DeadLetterQueue.replay(dead_letter.message_id)
    drain()

    dead_letter.refresh_from_db()
    assert dead_letter.state == State.RESOLVED
