"""The long proofs: thousands of messages while workers, relays and the broker's memory are taken away."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from django.db import connection

import outbox
from config.celery import app
from dlq import replay
from dlq.models import DeadLetter, State
from outbox.models import OutboxMessage, Skipped
from outbox.testing import staged, wait_until_settled
from tests.conftest import flush_redis
from tests.support import effects, tasks
from tests.support.processes import Process, await_, environment, relay, worker

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("clean"),
    pytest.mark.proof,
    pytest.mark.alone,
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
def producing(total: int, per_second: float, hurry: Callable[[int], bool]) -> Iterator[list[str]]:
    """Enqueue `total` messages at a steady rate from a thread; the list grows with what was committed."""
    names: list[str] = []
    stop = threading.Event()

    def produce() -> None:
        began = time.monotonic()
        while len(names) < total and not stop.is_set():
            due = min(total, int((time.monotonic() - began) * per_second)) - len(names)
            if due > 0:
                fresh = range(len(names), len(names) + due)
                outbox.enqueue_many(
                    (tasks.note_once if hurry(n) else tasks.note_once_in_no_hurry).s(f"m{n}") for n in fresh
                )
                names.extend(f"m{n}" for n in fresh)
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


@pytest.mark.promise(
    "P2", "the broker forgets everything (FLUSHALL)", "every open message is published again"
)
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


def test_a_message_lost_between_pop_and_unacked_is_requeued() -> None:
    names = [f"m{n}" for n in range(20)]
    enqueue_names(names)
    with relay(env=QUICK):
        with worker(concurrency=1, env={**QUICK, "HOLDFAST_TEST_SABOTAGE": "pop"}, name="doomed") as doomed:
            await_(lambda: not doomed.alive(), "the worker died between BRPOP and HSET")
        with worker(concurrency=1, env=QUICK, name="next"):
            wait_until_settled(60)
    assert_each_once(names)


def test_forty_ends_of_busy_workers_lose_nothing(
    figure: Callable[[str], None],
) -> None:
    """At three hundred messages a second.

    20 x SIGKILL of the whole worker and 20 x SIGTERM, in turn, from the first messages of the flow to its last.

    Each end comes while the worker is inside a task's transaction, which the database is asked for. A worker takes
    seconds to start, so that those who take over are started before the flow, and read another queue until then.
    """
    total, ends, at_work = 15_000, 40, 5
    with ExitStack() as stack:
        fleet = start_together(stack, [f"w{number}" for number in range(at_work + ends)])
        for name in list(fleet)[:at_work]:
            take_over(name)
        for _ in range(2):
            stack.enter_context(relay(env=QUICK))
        waiting, caught, began = list(fleet)[at_work:], [], time.monotonic()
        # A busy worker answers late; the next end does not wait for it.
        takeovers = stack.enter_context(ThreadPoolExecutor(1))
        taken_over = []
        with producing(total, per_second=330, hurry=lambda number: number % 30 != 0) as names:
            for end, (victim, successor) in enumerate(zip(list(fleet)[:ends], waiting, strict=True)):
                await_(lambda end=end: len(names) >= total * end // ends, "the flow has come so far", 120)
                await_(lambda victim=victim: is_in_a_task(victim), f"{victim} is at work", 60)
                signal_ = signal.SIGKILL if end % 2 else signal.SIGTERM
                # A warm shutdown is told to the parent alone; what ends a machine ends the whole worker.
                (os.killpg if end % 2 else os.kill)(fleet[victim].pid, signal_)
                caught.append(is_in_a_task(victim))
                taken_over.append(takeovers.submit(take_over, successor))
            for each in taken_over:
                each.result(60)
            await_(lambda: len(names) == total, "everything is enqueued", 120)
            rate = total / (time.monotonic() - began)
            wait_until_settled(240)
            took_s = time.monotonic() - began
        for victim in list(fleet)[:ends]:
            await_(lambda victim=victim: not fleet[victim].alive(), f"{victim} has ended")
    duplicates = sum(Skipped.objects.values_list("count", flat=True))
    figure(
        f"{total} messages at {rate:.0f} a second, settled after {took_s:.0f} s, through 20 SIGKILL and 20 SIGTERM"
        f" of workers, {sum(caught)} of them seen inside a task after the signal; {duplicates} copies skipped"
    )
    assert_each_once(names)
    assert rate >= 300
    assert sum(caught) >= ends * 0.9


def start_together(stack: ExitStack, names: list[str]) -> dict[str, Process]:
    """Workers of one process, which the database knows by their names, on a queue without other messages."""

    def start(name: str) -> Process:
        url = f"{environment()['DATABASE_URL']}?application_name={name}"
        return stack.enter_context(
            worker(queues=("low",), concurrency=1, env={**QUICK, "DATABASE_URL": url}, name=name)
        )

    with ThreadPoolExecutor(4) as starters:
        return dict(zip(names, starters.map(start, names), strict=True))


def take_over(name: str) -> None:
    """Let this worker read the queue of the test."""
    assert app.control.add_consumer("default", destination=[f"{name}@test"], reply=True, timeout=20)


def is_in_a_task(name: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT FROM pg_stat_activity WHERE application_name = %s AND state = 'active'"
            " AND query LIKE '%%pg_sleep%%'",
            [name],
        )
        return cursor.fetchone() is not None


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


@pytest.mark.promise(
    "P7",
    "workers and messages die while some are retried, replayed or given up",
    "no message overtakes one of its group that is still open or dead",
)
def test_one_keys_messages_stay_in_order_through_kills_and_retries() -> None:
    """With several relays, and with dead letters among the messages.

    Of each key four messages die: two are replayed, two are given up. No later message passes while that is not decided.
    """
    keys, each, replayed, given_up = 10, 40, (5, 25), (15, 35)
    for n in range(each):
        for key in range(keys):
            mortal = n in replayed + given_up
            outbox.enqueue(tasks.ordered_flaky.s(f"k{key}:{n:03}", mortal), ordering_key=f"k{key}")
    decided = []

    def decide() -> None:
        for dead_letter in DeadLetter.objects.filter(state=State.OPEN):
            name = dead_letter.args[0]
            key = name.partition(":")[0]
            assert effects.names(f"{key}:")[-1:] < [name], "a later one has passed it"
            if int(name.rpartition(":")[2]) in replayed:
                effects.add(f"told-{name}")
                replay.replay(dead_letter.pk)
            else:
                replay.discard(dead_letter.pk, reason="given up")
            decided.append(name)

    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(relay(batch=20, env=QUICK))
        fleet = [stack.enter_context(worker(concurrency=1, env=QUICK, name=f"w{n}")) for n in range(4)]
        await_(lambda: decide() or len(effects.names("k")) > 60, "work has begun", 60)
        os.killpg(fleet[0].pid, signal.SIGKILL)
        await_(lambda: decide() or not staged(), "all is settled", 240)
    for key in range(keys):
        done = [n for n in range(each) if n not in given_up]
        assert effects.names(f"k{key}:") == [f"k{key}:{n:03}" for n in done]
    assert len(decided) == len(set(decided)) == keys * 4


FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)


def test_a_worker_whose_clock_is_two_hours_ahead_repeats_nothing() -> None:
    """On Redis it takes what others hold for overdue; its copies find the claims taken, by the database's clock."""
    if FAKETIME is None:
        # The run that decides about a release must not pass over it.
        say = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        say("libfaketime is not installed (apt install libfaketime)")
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
