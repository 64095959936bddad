"""A supervisor that stops every process of a worker and not only the first: nothing is lost, and no delivery is spent."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

import outbox
from dlq.models import DeadLetter
from outbox.models import OutboxMessage
from outbox.testing import wait_until_settled
from tests.support import effects, rawpublish, tasks
from tests.support.brokers import on_rabbitmq_in_proof
from tests.support.processes import Process, await_, relay, worker

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clean")]

#: As long as by default, so that the parent's own signal is never later than its word about a child.
QUICK = {"OUTBOX_MARGIN": "1", "OUTBOX_WORKER_TIMEOUT": "3", "HOLDFAST_TEST_LOST_WAIT": "10"}


def terminate_all(process: Process) -> None:
    """systemd's KillMode=control-group, a shell that passes its signal on."""
    os.killpg(process.pid, signal.SIGTERM)


def interrupt_all(process: Process) -> None:
    """Ctrl-C in a terminal. The children ignore it, and this supervisor then ends them."""
    os.killpg(process.pid, signal.SIGINT)
    for child in process.children():
        os.kill(child, signal.SIGTERM)


def terminate_children_first(process: Process) -> None:
    """The parent sees its children die before it is told to stop itself."""
    for child in process.children():
        os.kill(child, signal.SIGTERM)
    await_(lambda: "exited with 'signal 15" in process.output(), "the parent sees a child's end")
    process.signal(signal.SIGTERM)


def quit_cold(process: Process) -> None:
    """The cold shutdown: after the soft one the parent terminates its children itself."""
    process.signal(signal.SIGQUIT)


STOPS: list[Callable[[Process], None]] = [terminate_all, interrupt_all, terminate_children_first, quit_cold]


@pytest.mark.promise(
    "P4",
    "a whole worker is stopped with all its processes, again and again",
    "its messages run elsewhere; no delivery is spent",
)
@on_rabbitmq_in_proof
def test_stopping_a_worker_with_its_processes_dead_letters_nothing() -> None:
    """Not if it happens more often than a message may be delivered."""
    messages = [tasks.until_told_twice_delivered.s("leased"), tasks.until_told_once.s("locked")]
    outbox.enqueue_many(messages)

    with relay(env=QUICK):
        for number, stop in enumerate(STOPS, start=1):
            with worker(concurrency=2, env=QUICK, name=f"w{number}") as process:
                await_(lambda: effects.count("leased-begun") == number, "the leased one runs")  # noqa: B023
                process.wait_for_output("tasks.until_told_once[")

                stop(process)
                process.popen.wait(30)

        assert not OutboxMessage.objects.exclude(deliveries__lte=1).exists()
        effects.add("leased-told")
        effects.add("locked-told")

        with worker(concurrency=2, env=QUICK, name="last"):
            wait_until_settled(30)

    assert {(row.status, row.attempts) for row in OutboxMessage.objects.all()} == {("done", 1)}
    assert effects.count("leased-ended") == effects.count("locked") == 1
    assert not DeadLetter.objects.exists()


def test_a_stopped_message_without_a_row_is_no_dead_letter() -> None:
    """It is stopped with its worker each time.

    It may be lost with its process three times; here it is stopped four times.
    """
    rawpublish.send("tests.support.tasks.until_told", "foreign")
    for number in range(1, 5):
        with worker(concurrency=1, env=QUICK, name=f"w{number}") as process:
            await_(lambda: effects.count("foreign-begun") == number, "it runs")  # noqa: B023
            terminate_all(process)
            process.popen.wait(30)
    effects.add("foreign-told")
    with worker(concurrency=1, env=QUICK, name="last"):
        await_(lambda: effects.count("foreign-ended") == 1, "it ends")
    assert not DeadLetter.objects.exists()
