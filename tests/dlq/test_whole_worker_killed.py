"""A message that ends whole workers, parent and all, so that no process is left to count its runs, has an end as well."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from config.celery import app
from dlq.models import DeadLetter, LostRun
from tests.support import effects, rawpublish, tasks
from tests.support.brokers import on_rabbitmq_in_proof
from tests.support.processes import await_, relay, worker

pytestmark = [pytest.mark.slow, on_rabbitmq_in_proof]

QUICK = {"OUTBOX_MARGIN": "1", "OUTBOX_WORKER_TIMEOUT": "3"}
TASK = tasks.kills_its_worker.name


@pytest.fixture(autouse=True)
def declared(clean: None) -> None:
    """The queue is there before the first worker."""
    assert rawpublish.depth() == 0


def give_back(count: int) -> None:
    """The messages are received by a consumer that ends without an acknowledgement."""
    with app.connection_for_read() as connection:
        channel = connection.channel()
        for _ in range(count):
            await_(lambda: channel.basic_get(rawpublish.QUEUE), "a message is received", 10)
        channel.close()
    await_(lambda: rawpublish.depth() == count, "they are back", 10)


def start_workers_until(done: Callable[[], bool]) -> int:
    """As a supervisor does; returns how many it took."""
    started = 0
    while not done():
        assert started < 10, "the message is given out without end"
        with worker(concurrency=1, env=QUICK) as process:
            started += 1
            await_(
                lambda process=process: done() or not process.alive(),
                "a dead letter, or another dead worker",
                60,
            )
        visibility_timeout_passes()
    return started


def visibility_timeout_passes() -> None:
    """RabbitMQ gives the message of a killed worker out again at once, Redis when it was received long ago."""
    url = app.conf.broker_url
    if url.startswith("redis"):
        with redis.Redis.from_url(url) as client:
            for tag in client.zrange("unacked_index", 0, -1):
                client.zadd("unacked_index", {tag: 0})


def test_without_a_journal_a_message_with_spent_runs_is_dead() -> None:
    """It becomes a dead letter and does not run again."""
    spent, has_one_left = (rawpublish.send("tests.support.tasks.note", name) for name in ("spent", "left"))
    LostRun.objects.create(message_key=spent, count=2)
    LostRun.objects.create(message_key=has_one_left, count=1)
    give_back(2)
    with worker(concurrency=1) as process:
        await_(lambda: effects.count("left") == 1, "what has a run left runs")
        await_(lambda: DeadLetter.objects.exists(), "the dead letter")
        assert process.alive()
    dead_letter = DeadLetter.objects.get()
    assert (dead_letter.message_id, dead_letter.cause, dead_letter.args) == (spent, "lost", ["spent"])
    assert effects.count("spent") == 0
    assert rawpublish.depth() == 0
    assert not LostRun.objects.filter(message_key=spent).exists(), "a replay has all its runs again"


@pytest.mark.promise(
    "P4", "a message ends the whole worker each time that it runs", "a dead letter; the next worker lives"
)
@pytest.mark.proof
def test_without_a_journal_a_message_kills_three_workers_at_most() -> None:
    """Then it is a dead letter."""
    message_id = rawpublish.send(TASK, "poison")
    assert start_workers_until(lambda: DeadLetter.objects.exists()) == 4
    assert effects.count("poison") == 3
    dead_letter = DeadLetter.objects.get()
    assert (dead_letter.message_id, dead_letter.cause, dead_letter.args) == (message_id, "lost", ["poison"])
    assert rawpublish.depth() == 0


@pytest.mark.proof
def test_an_outbox_message_that_kills_workers_ends_as_dead_letter() -> None:
    """It kills whole workers until its deliveries are spent."""
    message_id = tasks.kills_its_worker.delay("poison").id
    with relay(env=QUICK):
        start_workers_until(lambda: DeadLetter.objects.exists())
    assert effects.count("poison") == tasks.kills_its_worker.max_deliveries
    dead_letter = DeadLetter.objects.get()
    assert (dead_letter.message_id, dead_letter.cause) == (message_id, "lost")
