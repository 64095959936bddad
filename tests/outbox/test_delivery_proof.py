"""The long proofs: thousands of messages while workers, relays and the broker's memory are taken away."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from django.db import connection

import outbox
from outbox.models import OutboxMessage
from outbox.testing import wait_until_settled
from tests.conftest import flush_redis
from tests.support import effects, tasks
from tests.support.processes import Process, await_, relay, worker

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("clean"),
    pytest.mark.proof,
]

QUICK = {"OUTBOX_MARGIN": "2", "OUTBOX_WORKER_TIMEOUT": "5", "LOG_LEVEL": "WARNING"}


def enqueue_names(names: list[str], *, batch: int = 500) -> None:
    for start in range(0, len(names), batch):
        outbox.enqueue_many([tasks.note_once.s(name) for name in names[start : start + batch]])


def assert_each_once(names: list[str]) -> None:
    counts = Counter(effects.names())
    lost = [name for name in names if counts[name] == 0]
    doubled = [name for name, count in counts.items() if count > 1]
    assert (len(lost), len(doubled)) == (0, 0), f"lost {lost[:5]}, doubled {doubled[:5]} of {len(names)}"


@contextmanager
def producing(total: int, per_second: float) -> Iterator[list[str]]:
    """Enqueue `total` messages at a steady rate from a thread; the list grows with what was committed."""
    names: list[str] = []
    stop = threading.Event()

    def produce() -> None:
        began = time.monotonic()
        while len(names) < total and not stop.is_set():
            due = min(total, int((time.monotonic() - began) * per_second)) - len(names)
            if due > 0:
                fresh = [f"m{len(names) + n}" for n in range(due)]
                outbox.enqueue_many([tasks.note_once.s(name) for name in fresh])
                names.extend(fresh)
            stop.wait(0.05)
        connection.close()

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        yield names
    finally:
        stop.set()
        thread.join(30)


def test_ten_thousand_messages_through_two_relays_and_four_workers_take_effect_once() -> None:
    names = [f"m{n}" for n in range(10_000)]
    enqueue_names(names)
    with ExitStack() as stack:
        for n in range(4):
            stack.enter_context(worker(concurrency=1, env=QUICK, name=f"w{n}"))
        for _ in range(2):
            stack.enter_context(relay(batch=100, env=QUICK))
        wait_until_settled(240)
    assert_each_once(names)


def test_flushall_with_a_thousand_in_flight_settles_all_within_a_minute(
    figure: Callable[[str], None],
) -> None:
    names = [f"m{n}" for n in range(2_000)]
    enqueue_names(names)
    with relay(env=QUICK), worker(concurrency=2, env=QUICK):
        await_(lambda: len(effects.names()) > 100, "work has begun")
        published = OutboxMessage.objects.filter(status="published").count()
        flush_redis()
        began = time.monotonic()
        wait_until_settled(60)
        figure(f"{published} in flight at FLUSHALL, all settled after {time.monotonic() - began:.1f} s")
    assert published >= 1_000
    assert_each_once(names)


def test_a_message_lost_between_pop_and_unacked_is_offered_again() -> None:
    names = [f"m{n}" for n in range(20)]
    enqueue_names(names)
    with relay(env=QUICK):
        with worker(concurrency=1, env={**QUICK, "HOLDFAST_TEST_SABOTAGE": "pop"}, name="doomed") as doomed:
            await_(lambda: not doomed.alive(), "the worker died between BRPOP and HSET")
        with worker(concurrency=1, env=QUICK, name="next"):
            wait_until_settled(60)
    assert_each_once(names)


def test_forty_ends_of_workers_at_three_hundred_messages_a_second_lose_nothing(
    figure: Callable[[str], None],
) -> None:
    """20 x SIGKILL of the whole worker and 20 x SIGTERM, in turn, while messages flow."""
    total = 15_000
    rng = random.Random(7)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(relay(env=QUICK))

        def start(name: str) -> tuple[ExitStack, Process]:
            inner = ExitStack()
            return inner, inner.enter_context(worker(concurrency=2, env=QUICK, name=name))

        fleet = [start(f"w{n}") for n in range(2)]
        with producing(total, per_second=330) as names:
            began = time.monotonic()
            for end in range(40):
                index = end % len(fleet)
                inner, process = fleet[index]
                if end % 4 < 2:
                    process.kill_group()
                else:
                    process.signal(signal.SIGTERM)
                inner.close()
                fleet[index] = start(f"w{index}-{end}")
                await_(lambda: True, "", timeout_s=rng.random())
            await_(lambda: len(names) == total, "everything is enqueued", 120)
            wait_until_settled(240)
            took_s = time.monotonic() - began
        for inner, _ in fleet:
            inner.close()
    duplicates = sum(OutboxMessage.objects.values_list("duplicates", flat=True))
    figure(f"{total} messages in {took_s:.0f} s with 20 SIGKILL and 20 SIGTERM; {duplicates} copies skipped")
    assert_each_once(names)


def test_a_rolling_restart_under_load_drops_and_repeats_nothing() -> None:
    """Twenty warm restarts; `note` writes outside of the settlement, so that a repeated run would show."""
    total = 3_000
    with relay(env=QUICK), ExitStack() as stack:
        names = [f"m{n}" for n in range(total)]

        def start(name: str) -> tuple[ExitStack, Process]:
            inner = ExitStack()
            return inner, inner.enter_context(worker(concurrency=2, env=QUICK, name=name))

        fleet = [start("a"), start("b")]
        for start_at in range(0, total, 150):
            outbox.enqueue_many([tasks.note.s(name) for name in names[start_at : start_at + 150]])
            index = (start_at // 150) % 2
            inner, process = fleet[index]
            assert process.stop() == 0
            inner.close()
            fleet[index] = start(f"w{start_at}")
        wait_until_settled(120)
        for inner, _ in fleet:
            stack.push(inner)
    assert_each_once(names)
    assert not OutboxMessage.objects.exclude(status="done").exists()


def test_an_ordering_keys_messages_stay_in_order_through_retries_relays_and_killed_workers() -> None:
    keys, each = 10, 40
    for n in range(each):
        for key in range(keys):
            outbox.enqueue(tasks.ordered_flaky.s(f"k{key}:{n:03}"), ordering_key=f"k{key}")
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(relay(batch=20, env=QUICK))
        fleet = [stack.enter_context(worker(concurrency=1, env=QUICK, name=f"w{n}")) for n in range(4)]
        await_(lambda: len(effects.names()) > 60, "work has begun", 60)
        os.killpg(fleet[0].pid, signal.SIGKILL)
        wait_until_settled(240)
    for key in range(keys):
        assert effects.names(f"k{key}:") == [f"k{key}:{n:03}" for n in range(each)]


FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed (apt install libfaketime)")
def test_a_worker_whose_clock_is_two_hours_ahead_repeats_nothing() -> None:
    """On Redis it takes what others hold for overdue; its copies find the claims taken, by the database's clock."""
    ahead = {**QUICK, "LD_PRELOAD": str(FAKETIME), "FAKETIME": "+2h"}
    names = [f"m{n}" for n in range(300)]
    with relay(env=QUICK), worker(concurrency=1, env=QUICK, name="right"):
        outbox.enqueue_many([tasks.slow.s(f"slow{n}", 4) for n in range(2)])
        await_(lambda: effects.count("slow0-begun") == 1, "the right worker holds a message")
        with worker(concurrency=1, env=ahead, name="ahead") as skewed:
            enqueue_names(names)
            wait_until_settled(90)
            assert skewed.alive()
    assert_each_once([*names, "slow0-begun", "slow0-ended", "slow1-begun", "slow1-ended"])
