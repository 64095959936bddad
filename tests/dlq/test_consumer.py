"""What never becomes a request: recorded whole, once, and the worker goes on."""

from __future__ import annotations

import signal

import pytest
from django.conf import settings

from dlq.models import DeadLetter, State
from tests.dlq.corpus import TASK, Broken, corpus
from tests.support import effects, rawpublish
from tests.support.brokers import on_rabbitmq_in_proof
from tests.support.pool import assert_every_process_works
from tests.support.processes import Process, await_, worker

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("clean"), on_rabbitmq_in_proof]


def applicable() -> list[Broken]:
    return [
        broken
        for broken in corpus()
        if not broken.only_redis or not settings.CELERY_BROKER_URL.startswith("amqp")
    ]


def assert_recorded(dead_letter: DeadLetter, broken: Broken) -> None:
    raw = dead_letter.message
    assert raw is not None
    assert dead_letter.state == State.OPEN
    assert dead_letter.cause == broken.cause, f"{broken.name}: {dead_letter.summary}"
    assert dead_letter.queue == rawpublish.QUEUE
    if "compression" not in broken.headers:
        assert raw.body == broken.body_bytes, broken.name
    for name, value in broken.headers.items():
        assert raw.headers[name] == value, broken.name


def assert_healthy(process: Process) -> None:
    """The same process, the same pool, no reconnect; and the next good message runs in every slot of the pool."""
    assert process.alive()
    assert "Connection to broker lost" not in process.output()
    assert_every_process_works(process)


def test_the_corpus_is_large_and_its_messages_differ() -> None:
    assert len(corpus()) >= 40
    assert len({broken.name for broken in corpus()}) == len(corpus())


@pytest.mark.described("a bad payload is set aside, and the messages behind it run")
def test_each_malformed_message_is_recorded_once_and_the_next_good_message_runs() -> None:
    with worker() as process:
        for number, broken in enumerate(applicable(), start=1):
            rawpublish.publish_all([broken.as_sent])
            await_(
                lambda number=number: DeadLetter.objects.count() >= number or not process.alive(),
                f"{broken.name}: recorded",
                10,
            )
            assert process.alive(), f"{broken.name}: ended the worker"
            assert_recorded(DeadLetter.objects.latest("id"), broken)
        assert_healthy(process)
    assert DeadLetter.objects.count() == len(applicable())
    assert rawpublish.depth() == 0, "something was not acknowledged"


@pytest.mark.promise(
    "P5",
    "a message is malformed",
    "a dead letter with the raw message",
    celery="drops it, or the worker dies",
)
def test_malformed_messages_at_once_are_each_recorded_once() -> None:
    """The worker goes on."""
    messages = applicable()

    with worker() as process:
        rawpublish.publish_all([broken.as_sent for broken in messages])
        await_(
            lambda: DeadLetter.objects.count() >= len(messages) or not process.alive(), "all are recorded", 60
        )
        assert_healthy(process)

    assert DeadLetter.objects.count() == len(messages)
    assert sorted(
        dead_letter.message.body for dead_letter in DeadLetter.objects.all() if dead_letter.message
    ) == sorted(dead_letter_body for dead_letter_body in _bodies_as_kept(messages))
    assert rawpublish.depth() == 0


def _bodies_as_kept(messages: list[Broken]) -> list[bytes]:
    return [broken.body_bytes for broken in messages]


def test_a_cold_shutdown_gives_back_what_runs() -> None:
    """What runs goes back to the broker and becomes no dead letter."""
    with worker() as process:
        rawpublish.send("tests.support.tasks.slow", "cold", 60)
        await_(lambda: effects.count("cold-begun") == 1, "it runs")
        process.signal(signal.SIGQUIT)
        await_(lambda: "soft shutdown" in process.output().lower(), "the shutdown begins")
        process.signal(signal.SIGQUIT)
        process.popen.wait(30)
    assert not DeadLetter.objects.exists()
    assert rawpublish.depth() == 1


def test_the_log_of_a_refused_message_quotes_no_body_or_secret() -> None:
    body = b'\xff{"password": "hunter2"}' * 2_000
    with worker() as process:
        rawpublish.publish(body, rawpublish.task_headers(TASK))
        await_(DeadLetter.objects.exists, "the dead letter")
        output = process.output()
    assert "becomes a dead letter (undecodable)" in output
    assert "hunter2" not in output
    assert len(output) < len(body)
