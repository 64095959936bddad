"""Tasks of the tests, registered in test processes and in the workers that tests start.

Their effects are rows of `outbox_test_effect` (see tests/support/effects.py), written by the run, so that a
test can count them whatever process they ran in.
"""

from __future__ import annotations

import os
import random
import signal
import time
from typing import Any

from celery import Task, shared_task
from django.db import connection

from tests.support import effects


@shared_task
def note(name: str) -> str:
    """An effect outside of the settlement's transaction: at least once."""
    effects.add(name)
    return name


@shared_task(transactional=True)
def note_once(name: str) -> str:
    """An effect in the settlement's transaction: exactly once."""
    effects.add(name)
    return name


@shared_task(autoretry_for=(ConnectionError,), max_retries=2)
def always_unavailable(name: str) -> None:
    effects.add(name)
    raise ConnectionError("the other side is down")


@shared_task(transactional=True, autoretry_for=(ConnectionError,), max_retries=2)
def transactional_unavailable(name: str) -> None:
    effects.add(name)
    raise ConnectionError("the other side is down")


@shared_task(autoretry_for=(Exception,), permanent_errors=(ValueError,), max_retries=5)
def permanently_wrong(name: str) -> None:
    effects.add(name)
    raise ValueError("no retry can mend this")


@shared_task(transactional=True)
def transactional_wrong(name: str) -> None:
    raise ValueError("wrong")


@shared_task(autoretry_for=(ConnectionError,), max_retries=1, secret_arguments=("pass_phrase_of",))
def is_refused(order_id: int, pass_phrase_of: str, note: str = "") -> None:
    """A call with a secret in a position, whose error quotes it."""
    raise ConnectionError(f"refused: password={pass_phrase_of}")


@shared_task(transactional=True, secret_arguments=("key_of_it",))
def pays(order_id: int, key_of_it: str, options: Any = None) -> None:
    """A call that no order 0 has, with a secret in a position."""
    if order_id == 0:
        raise ValueError("there is no order 0")
    effects.add(f"{order_id} {key_of_it}")


@shared_task
def returns_no_json(name: str) -> object:
    effects.add(name)
    return object()


@shared_task
def slow(name: str, seconds: float) -> None:
    effects.add(f"{name}-begun")
    time.sleep(seconds)
    effects.add(f"{name}-ended")


@shared_task
def until_told(name: str) -> None:
    """Runs until a test adds the effect `{name}-told`."""
    effects.add(f"{name}-begun")
    _await_told(name)
    effects.add(f"{name}-ended")


@shared_task(max_deliveries=2)
def until_told_twice_delivered(name: str) -> None:
    until_told(name)


@shared_task(transactional=True, max_deliveries=2)
def until_told_once(name: str) -> None:
    """Runs until a test adds the effect `{name}-told`, in one transaction with its settlement."""
    _await_told(name)
    effects.add(name)


@shared_task(autoretry_for=(ConnectionError,), max_retries=1)
def fails_when_told(name: str) -> None:
    """Its first run fails when a test has added the effect `{name}-told`, its second does not."""
    effects.add(f"{name}-begun")
    if effects.count(f"{name}-begun") == 1:
        _await_told(name)
        raise ConnectionError("told to")
    effects.add(f"{name}-ended")


def _await_told(name: str) -> None:
    deadline = time.monotonic() + 60
    while not effects.count(f"{name}-told"):
        assert time.monotonic() < deadline, f"{name} was never told"
        time.sleep(0.05)


@shared_task
def meet(name: str, processes: int) -> None:
    """Ends well when as many processes are in it at the same time; leaves the effect `{name}-{pid}`."""
    effects.add(f"{name}-{os.getpid()}")
    deadline = time.monotonic() + 20
    while len(set(effects.names(f"{name}-"))) < processes:
        assert time.monotonic() < deadline, f"alone with {effects.names(name)}"
        time.sleep(0.02)


@shared_task(transactional=True)
def slow_transactional(name: str, seconds: float) -> None:
    time.sleep(seconds)
    effects.add(name)


@shared_task(time_limit=1, soft_time_limit=None)
def over_the_hard_limit(name: str) -> None:
    effects.add(name)
    time.sleep(60)


@shared_task(max_deliveries=3)
def kills_its_process(name: str) -> None:
    effects.add(name)
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task(max_deliveries=3)
def kills_its_worker(name: str) -> None:
    """Parent and all: no process is left that could count the run."""
    effects.add(name)
    os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task(max_deliveries=3, transactional=True)
def kills_its_process_in_transaction(name: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task(max_deliveries=2)
def crashes_its_backend(name: str) -> None:
    """And with it, as every crash does, all sessions of the server."""
    effects.add(name)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        os.kill(cursor.fetchone()[0], signal.SIGKILL)
        cursor.execute("SELECT 1")


@shared_task(max_deliveries=2)
def exits(name: str) -> None:
    effects.add(name)
    raise SystemExit(3)


@shared_task
def out_of_memory(name: str) -> None:
    effects.add(name)
    raise MemoryError("as if")


@shared_task(passes_over_dead=True)
def ordered_passing(name: str, fail: bool = False) -> None:
    effects.add(name)
    if fail:
        raise ValueError("dead, and passed over")


@shared_task
def ordered(name: str, fail: bool = False) -> None:
    effects.add(name)
    if fail:
        raise ValueError("dead, and holding its group")


def broken_strategy(task: Any, app: Any, consumer: Any) -> Any:
    def handle(message: Any, *args: Any) -> None:
        consumer.controller.semaphore.acquire(_raise_key_error)

    return handle


def _raise_key_error() -> None:
    raise KeyError("the handler is broken")


@shared_task(Strategy="tests.support.tasks:broken_strategy")
def breaks_the_handler() -> None:
    """Celery's handler for this task takes a slot of the pool and raises."""


class Unspeakable(Exception):
    """An exception that cannot even be shown."""

    def __str__(self) -> str:
        raise RuntimeError("cannot be shown")

    __repr__ = __str__


@shared_task
def fails_unspeakably() -> None:
    raise Unspeakable


class DecodeError(Exception):
    """Named as kombu's, which says that the message itself cannot be read."""


@shared_task
def cannot_decode_what_it_fetched() -> None:
    raise DecodeError("the other side sent no JSON")


@shared_task
def wrong_without_database() -> None:
    raise LookupError("nothing here needs the database")


@shared_task(transactional=True, autoretry_for=(ConnectionError,), max_retries=50)
def ordered_flaky(name: str, mortal: bool = False) -> None:
    """Fails now and then, before its effect counts: a retry must not let the next of its group pass.

    A mortal one dies, until a test has added the effect `told-{name}`.
    """
    effects.add(name)
    if mortal and not effects.count(f"told-{name}"):
        raise ValueError("dead until told")
    if random.random() < 0.2:
        raise ConnectionError("again")


@shared_task(transactional=True)
def note_once_in_no_hurry(name: str) -> None:
    """Like `note_once`, and can be seen at work in `pg_stat_activity` for a fifth of a second."""
    effects.add(name)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(0.2)")


@shared_task
def wrong_until_told(name: str) -> None:
    if not effects.count(f"{name}-told"):
        raise LookupError("not told yet")
    effects.add(f"{name}-done")


@shared_task(autoretry_for=(ConnectionError,), max_retries=2)
def unavailable_until_told(name: str) -> None:
    if not effects.count(f"{name}-told"):
        raise ConnectionError("the other side is down")
    effects.add(f"{name}-done")


@shared_task(time_limit=1)
def hangs_without_database() -> None:
    time.sleep(60)


class AcknowledgesFirst(Task):
    """As a task may do without the outbox. In its declaration it is refused, so that only its instances say so."""

    abstract = True
    acks_late = property(lambda self: False)  # type: ignore[assignment]


@shared_task(base=AcknowledgesFirst)
def kills_its_process_acknowledged(name: str) -> None:
    effects.add(name)
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task
def not_for_outsiders(name: str) -> None:
    """The one task here that a message without a row does not run: see OUTBOX_FOREIGN_TASKS of the tests' settings."""
    effects.add(name)
