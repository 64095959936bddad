"""One worker, through one mishap of its Redis and its database after another: it goes on, nothing is lost or doubled.

The relay runs in the test's own process, with a real connection of its own.
"""

from __future__ import annotations

import signal
import time

import pytest

import outbox
from config.celery import app
from outbox.broker.publisher import BrokerUnavailable
from outbox.models import OutboxMessage
from outbox.testing import wait_until_settled
from tests.outbox.test_redis import relaying
from tests.support import effects, tasks
from tests.support.brokers import using
from tests.support.one_worker import SOCKET_TIMEOUT_S, World, relay_here, running, the_row, tidy, world
from tests.support.processes import await_, worker
from tests.support.proxy import proxied

__all__ = ["tidy", "world"]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tidy")]


@pytest.mark.described("the connection between worker and Redis breaks: delivered again, one effect")
@pytest.mark.promise(
    "P3",
    "the connection between worker and Redis breaks during a run",
    "the message is delivered again at once, and the copy does nothing",
)
def test_a_message_redelivered_at_a_cut_connection_does_nothing(
    world: World,
) -> None:
    """Its first run goes on.

    Celery restores what it holds as soon as it notices, and another process, or the same one, takes it.
    """
    with relaying():
        with running("a"):
            world.client.client_kill_filter(_type="normal", skipme=True)
            await_(lambda: the_row("until_told").duplicates == 1, "the copy comes, and is counted")
            assert effects.count("a-ended") == 0
        wait_until_settled()
    assert (effects.count("a-begun"), effects.count("a-ended")) == (1, 1)
    assert the_row("until_told").attempts == 1


@pytest.mark.promise(
    "P2",
    "Redis does not answer for longer than every timeout",
    "Redis delivers again what was not acknowledged; the worker goes on in all its processes",
)
def test_a_redis_frozen_past_every_timeout_loses_and_doubles_nothing(world: World) -> None:
    """While there is work in hand."""
    names = [f"m{n}" for n in range(20)]
    with relaying():
        with running("a"):
            world.server.signal(signal.SIGSTOP)
            frozen_at = time.monotonic()
            outbox.enqueue_many([tasks.note_once.s(name) for name in names])
        try:
            await_(lambda: effects.count("a-ended") == 1, "the run has ended")
            await_(lambda: time.monotonic() - frozen_at > 4 * SOCKET_TIMEOUT_S, "every wait has timed out")
        finally:
            world.server.signal(signal.SIGCONT)
        wait_until_settled()
    assert sorted(effects.names("m")) == sorted(names)
    assert effects.names("a-") == ["a-begun", "a-told", "a-ended"]


@pytest.mark.promise("P2", "Redis is out of memory", "what the worker popped and could not note is requeued")
def test_what_is_popped_from_a_full_redis_is_done_later(
    world: World,
) -> None:
    """When Redis has room again. The worker can pop a message and not write down that it holds it."""
    said = len(world.worker.output())
    with relaying():
        with running("a", "b"):
            outbox.enqueue_many([tasks.note_once.s(f"waiting{n}") for n in range(3)])
            await_(lambda: world.client.llen("default") == 3, "they wait in Redis")
            world.client.config_set("maxmemory", 1)
        try:
            await_(lambda: "maxmemory" in world.worker.output()[said:], "the worker meets it")
            outbox.enqueue(tasks.note_once.s("later"))
            assert OutboxMessage.objects.filter(status="published").count() >= 1
        finally:
            world.client.config_set("maxmemory", 0)
        wait_until_settled()
    assert sorted(effects.names("waiting")) == ["waiting0", "waiting1", "waiting2"]
    assert [effects.count(name) for name in ("a-ended", "b-ended", "later")] == [1, 1, 1]


@pytest.mark.promise("P1", "the broker is down", "orders are accepted as always: no request needs it")
def test_delay_without_a_broker_commits_a_row(
    world: World,
) -> None:
    """Its effect follows once, when the broker is back."""
    with relaying():
        world.server.kill()
        tasks.note_once.delay("a")
        assert the_row("note_once").status == "pending"
        world.server.start()
        wait_until_settled()
    assert effects.count("a") == 1


@pytest.mark.promise(
    "P2",
    "the broker is down while a run is about to be retried",
    "the row is scheduled again, and published when the broker is back",
)
def test_a_retry_during_a_broker_outage_is_kept(world: World) -> None:
    """It runs when the broker is back.

    Celery's own `retry` publishes; when it cannot, the message is deleted.
    """
    with relaying():
        tasks.fails_when_told.delay("a")
        await_(lambda: effects.count("a-begun"), "the first run")

        world.server.kill()
        effects.add("a-told")
        await_(lambda: the_row("fails_when_told").generation == 2, "the row is armed again")
        assert the_row("fails_when_told").status in ("scheduled", "pending")

        world.server.start()
        wait_until_settled()

    assert effects.names("a-") == ["a-begun", "a-told", "a-begun", "a-ended"]
    assert the_row("fails_when_told").attempts == 2


@pytest.mark.promise(
    "P3",
    "the broker's confirmation of a batch is lost",
    "the batch is published again; the second copy does nothing",
)
def test_a_batch_without_an_answer_has_its_effect_once(
    world: World,
) -> None:
    """The batch arrives, its answer does not, and the relay soon gives up the wait for it."""
    answer_to_depths = b":0\r\n"
    address = world.server.url(0)

    with running("a", "b"), proxied("127.0.0.1", world.server.port) as proxy:
        silenced = address.replace(f":{world.server.port}", f":{proxy.port}")
        with using(silenced, socket_timeout=SOCKET_TIMEOUT_S), relay_here() as relay:
            outbox.enqueue(tasks.note_once.s("m"))
            proxy.stall(after_bytes=len(answer_to_depths))

            began = time.monotonic()
            with pytest.raises(BrokerUnavailable):
                relay.run_once()
            assert time.monotonic() - began < 2 * SOCKET_TIMEOUT_S
            assert world.client.llen("default") == 1, "it was delivered all the same"
            assert the_row("note_once").status == "pending"

            proxy.heal()
            assert relay.run_once() == 1
    wait_until_settled()

    # Beside the first one's run it finds the row locked, and to count it there would be to wait for that run.
    skipped = f"{the_row('note_once').message_id}: copy skipped"
    await_(lambda: skipped in world.worker.output(), "the second copy is skipped")
    assert effects.count("m") == 1


@pytest.mark.promise(
    "P3",
    "the connection to the database breaks in COMMIT",
    "the message runs again, and finds its effect done or not done",
)
@pytest.mark.parametrize("heard", [True, False], ids=["answer lost", "request lost"])
def test_a_commit_of_unknown_outcome_has_its_effect_once(world: World, heard: bool) -> None:
    cut_before = world.database.cuts

    with relaying():
        world.database.cut_at(b"COMMIT", heard=heard)
        tasks.note_once.delay("a")
        wait_until_settled()

    await_(lambda: the_row("note_once").duplicates == heard, "the run that repeats it finds it done, or not")
    row = the_row("note_once")
    assert world.database.cuts == cut_before + 1
    assert (row.status, row.attempts, row.generation) == ("done", 1, 1)
    assert effects.count("a") == 1


@pytest.mark.described("what is urgent does not wait for what is not, nor starve it")
@pytest.mark.promise("P6", "a flood of slow work is in `low`", "what is `critical` does not wait for it")
def test_slow_work_in_low_does_not_hold_up_critical(world: World) -> None:
    with relaying(), worker(queues=("low",), concurrency=1, name="low"):
        outbox.enqueue_many([tasks.until_told.s("low") for _ in range(20)], queue="low")
        await_(lambda: effects.count("low-begun"), "low is at work, with more behind it")

        for number in range(10):
            outbox.enqueue(tasks.note_once.s(f"critical{number}"), queue="critical")
        await_(lambda: len(effects.names("critical")) == 10, "all that is critical is done")

        assert effects.count("low-begun") == 1
        assert effects.count("low-ended") == 0

        effects.add("low-told")
        wait_until_settled()

    assert effects.count("low-ended") == 20


@pytest.mark.described(
    "a run that outlasts the visibility timeout is delivered again, and has its effect once"
)
@pytest.mark.promise(
    "P3", "a run outlasts the visibility timeout", "the message is delivered again, and the copy does nothing"
)
def test_a_run_past_the_visibility_timeout_has_its_effect_once(
    world: World,
) -> None:
    """It is delivered again.

    A setting that the checks refuse; but of all who share a Redis the shortest timeout counts.
    """

    def given_out_again() -> bool:
        with app.connection_for_read() as impatient:
            impatient.default_channel.qos.restore_visible(num=10, interval=1)
        return the_row("until_told").duplicates == 1

    with relaying():
        with running("a"), using(world.server.url(0), visibility_timeout=0.1):
            await_(given_out_again, "the copy comes, and is counted")
            assert effects.count("a-ended") == 0
        wait_until_settled()

    assert (effects.count("a-begun"), effects.count("a-ended")) == (1, 1)
    assert the_row("until_told").attempts == 1
