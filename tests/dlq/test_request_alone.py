"""What the parent does with endings that it caused itself, in the order that no test can time in a live worker."""

from __future__ import annotations

import json
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from celery.exceptions import Terminated, WorkerLostError
from kombu.message import Message

from config.celery import app
from dlq.models import DeadLetter, LostRun
from dlq.record import count_lost_run
from dlq.worker.request import Request
from tests.support import tasks
from tests.support.rawpublish import task_headers

pytestmark = pytest.mark.django_db(transaction=True)


class Acknowledgements(list[str]):
    """What was said to the broker."""

    def request(self, **headers: Any) -> Request:
        message = Message(
            body=json.dumps([["a"], {}, None]),
            content_type="application/json",
            content_encoding="utf-8",
            headers=task_headers(tasks.note.name, **headers),
            delivery_info={"routing_key": "default"},
        )
        return Request(
            message,
            on_ack=lambda *_: self.append("ack"),
            on_reject=lambda _logger, _errors, requeue: self.append("requeue" if requeue else "reject"),
            app=app,
            task=app.tasks[tasks.note.name],
            body=message.body,
            headers=message.headers,
        )


def ended_with(exception: BaseException) -> ExceptionInfo:
    try:
        raise exception
    except BaseException:
        return ExceptionInfo()


@pytest.mark.parametrize("exception", [SystemExit(0), WorkerLostError("lost"), Terminated(15)])
def test_a_run_that_the_worker_cancelled_is_not_acknowledged(
    exception: BaseException,
) -> None:
    """It is neither a dead letter nor a lost run.

    At a cold shutdown, or when the broker connection was lost: the broker offers the message again.
    """
    said = Acknowledgements()
    request = said.request()
    request._already_cancelled = True
    request.on_failure(ended_with(exception))
    assert said == []
    assert not DeadLetter.objects.exists()
    assert not LostRun.objects.exists()


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ([None, None], (360, 300)),
        ([86_400, None], (360, 300)),
        ([None, 86_400], (360, 360)),
        ([86_400, 86_400], (360, 360)),
        ([10, 5], (10, 5)),
        ([10, None], (10, 10)),
    ],
)
def test_a_producer_may_ask_for_less_time_but_not_more(
    asked: list[float | None], given: tuple[float, float]
) -> None:
    """Compared with what the settings give."""
    assert Acknowledgements().request(timelimit=asked).time_limits == given


def test_a_hard_time_limit_is_recorded_if_reported_only_once() -> None:
    """The pool reports the time limit, and no failure after it."""
    said = Acknowledgements()
    said.request().on_timeout(soft=False, timeout=1)
    assert said == ["ack"]
    assert DeadLetter.objects.get().cause == "timeout"


def test_a_hard_time_limit_that_the_pool_reports_twice_is_acknowledged_once() -> None:
    said = Acknowledgements()
    request = said.request()
    request.on_timeout(soft=False, timeout=1)
    request.on_timeout(soft=False, timeout=1)
    assert said == ["ack"]
    assert DeadLetter.objects.get().failures == 1


def test_a_lost_run_is_offered_again_until_its_runs_are_spent() -> None:
    said = Acknowledgements()
    first = said.request()
    for number in range(3):
        again = said.request()
        again.message.headers["id"] = again._request_dict["id"] = first.id
        again.on_failure(ended_with(WorkerLostError("lost")))
        assert said == ["requeue"] * min(number + 1, 2) + ["ack"] * (number == 2)
        # The consumer counts what the broker gives out again.
        count_lost_run(first.id)
    assert DeadLetter.objects.get().cause == "lost"
