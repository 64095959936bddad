"""The database or a worker is taken away while messages flow: nothing is lost, doubled, or dead for it."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from pytest_django.fixtures import Settings

import outbox
from outbox import stats
from outbox.models import OutboxMessage
from outbox.relay import queries
from outbox.testing import run_here, wait_until_settled
from tests.outbox.test_redis import relaying
from tests.support import effects, limited_tasks, tasks
from tests.support.processes import await_, relay, worker
from tests.support.servers import kill_postgres, start_postgres

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clean")]

QUICK = {"OUTBOX_MARGIN": "1", "OUTBOX_WORKER_TIMEOUT": "3"}


def test_a_database_restarted_under_load_loses_and_doubles_nothing() -> None:
    """No message becomes a dead letter."""
    names = [f"m{n}" for n in range(300)]
    with worker(concurrency=2, env=QUICK) as process, relay(batch=50, env=QUICK):
        outbox.enqueue_many([tasks.note_once.s(name) for name in names])
        await_(lambda: len(effects.names()) > 20, "work has begun")
        kill_postgres()
        start_postgres()
        wait_until_settled(60)
        assert process.alive()
    assert sorted(effects.names()) == sorted(names)
    assert not OutboxMessage.objects.filter(status="dead").exists()


@pytest.mark.promise(
    "P2",
    "PostgreSQL crashes before a publish mark is on its disk",
    (
        "the row is pending and published again; one of the copies is skipped ([decision "
        "8](../decisions/0008-a-mark-does-not-wait-for-the-disk.md))"
    ),
)
def test_a_message_whose_publish_mark_a_crash_forgets_runs_once() -> None:
    """It is published again, and one of the copies is skipped.

    PostgreSQL writes what does not wait for the disk every `wal_writer_delay`: long here, so that nothing else does.
    """
    message_id = outbox.enqueue(tasks.note_once.s("a"))
    with connection.cursor() as cursor:
        cursor.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
        cursor.execute("SELECT pg_reload_conf()")

    try:
        kill_postgres()
        start_postgres()
        connection.close()

        (first,) = queries.mark("default", 10)
        kill_postgres()
        start_postgres()
        connection.close()

        assert OutboxMessage.objects.get(message_id=message_id).status == "pending"

        (second,) = queries.mark("default", 10)
        assert second.identity()["publish"] == first.identity()["publish"] == 1
        for copy in (first, second):
            run_here(str(message_id), wire=copy.identity(), task=copy.task, queue="default")
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER SYSTEM RESET wal_writer_delay")
            cursor.execute("SELECT pg_reload_conf()")

    assert effects.names() == ["a"]
    assert stats.stats()["skipped"]["duplicate"] == 1


def test_a_worker_without_a_database_acknowledges_nothing() -> None:
    """It does not spin, and goes on after the outage."""
    with worker(concurrency=1, env=QUICK) as process, relay(env=QUICK):
        outbox.enqueue(tasks.note_once.s("before"))
        wait_until_settled(30)
        outbox.enqueue_many([tasks.slow.s("a", 2), tasks.note_once.s("b"), tasks.note_once.s("c")])
        await_(lambda: effects.count("a-begun") == 1, "the first is running")
        kill_postgres()
        began, began_cpu_s = time.monotonic(), process.cpu_s()
        await_(lambda: time.monotonic() - began > 5, "five seconds of outage")
        spent_s = process.cpu_s() - began_cpu_s
        start_postgres()
        wait_until_settled(60)
        assert process.alive()
    assert spent_s < 1.0, f"the parent used {spent_s:.1f} s of processor time in 5 s without a database"
    assert effects.count("a-ended") == 1
    assert (effects.count("b"), effects.count("c")) == (1, 1)


@pytest.mark.parametrize(
    ("task", "limit"),
    [
        (limited_tasks.note_soon, "Soft time limit"),
        (limited_tasks.note_once_soon, "Soft time limit"),
        (limited_tasks.note_hard, "before the hard time limit"),
    ],
)
def test_a_message_in_hand_outlives_an_outage_longer_than_its_time_limit(task: Any, limit: str) -> None:
    with relay(env=QUICK), worker(concurrency=1, env=QUICK) as process:
        outbox.enqueue(tasks.note.s("before"))
        wait_until_settled(30)
        # Frozen, so that the message is in the broker, and its run begins, when the database is down.
        os.killpg(process.pid, signal.SIGSTOP)
        message_id = outbox.enqueue(task.s("a"))
        await_(lambda: OutboxMessage.objects.filter(status="published").exists(), "it is published")
        kill_postgres()
        os.killpg(process.pid, signal.SIGCONT)
        process.wait_for_output(limit)
        process.wait_for_output("wait unacknowledged to be recorded")
        start_postgres()
        wait_until_settled(60)
        assert process.alive()
    message = OutboxMessage.objects.get(message_id=message_id)
    assert (message.status, message.attempts) == ("done", 1)
    assert effects.count("a") == 1


def test_a_transactional_run_without_its_database_runs_again() -> None:
    """The database is down until the soft time limit."""
    with relay(env=QUICK), worker(concurrency=1, env=QUICK) as process:
        message_id = outbox.enqueue(limited_tasks.slow_once_soon.s("a", 1))
        process.wait_for_output("received")
        kill_postgres()
        process.wait_for_output("Soft time limit")
        start_postgres()
        wait_until_settled(60)
    message = OutboxMessage.objects.get(message_id=message_id)
    assert (message.status, message.attempts) == ("done", 1)
    assert effects.count("a") == 1


def test_a_transactional_body_past_its_soft_limit_is_a_dead_letter() -> None:
    message_id = outbox.enqueue(limited_tasks.slow_once_soon.s("a", 30))
    with relay(env=QUICK), worker(concurrency=1, env=QUICK):
        wait_until_settled(30)
    message = OutboxMessage.objects.get(message_id=message_id)
    assert message.status == "dead"
    assert "SoftTimeLimitExceeded" in message.errors[-1]["error"]
    assert effects.count("a") == 0


def test_an_idle_workers_stale_connection_is_replaced_without_a_failed_task() -> None:
    with worker(concurrency=1, env=QUICK) as process, relay(env=QUICK):
        outbox.enqueue(tasks.note.s("before"))
        wait_until_settled(30)
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        after = [outbox.enqueue(tasks.note.s("after")), outbox.enqueue(tasks.note_once.s("after-too"))]
        wait_until_settled(30)
        assert process.alive()
    for message in OutboxMessage.objects.filter(message_id__in=after):
        assert (message.status, message.attempts, message.generation) == ("done", 1, 1)


def test_a_worker_keeps_its_database_connection_between_tasks() -> None:
    with worker(concurrency=1, env=QUICK), relay(env=QUICK):
        outbox.enqueue_many([tasks.note.s(f"{n}") for n in range(20)])
        wait_until_settled(30)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(DISTINCT pid) FROM outbox_test_effect")
        assert cursor.fetchone()[0] == 1


def test_a_frozen_workers_message_runs_elsewhere_and_the_thawed_one_settles_nothing() -> None:
    outbox.enqueue(tasks.slow.s("a", 2))
    with relay(env=QUICK), worker(concurrency=1, env=QUICK, name="first") as first:
        await_(lambda: effects.count("a-begun") == 1, "the first run has begun")
        os.killpg(first.pid, signal.SIGSTOP)
        with worker(concurrency=1, env=QUICK, name="second"):
            wait_until_settled(60)
            assert effects.count("a-ended") == 1
            os.killpg(first.pid, signal.SIGCONT)
            await_(lambda: "the claim was lost" in first.output(), "the thawed run finds its claim lost")
            outbox.enqueue(tasks.note_once.s("next"))
            wait_until_settled(30)
    message = OutboxMessage.objects.get(task="tests.support.tasks.slow")
    assert (message.status, message.attempts) == ("done", 1)


def test_sigterm_lets_the_running_task_end_and_hands_the_rest_to_others() -> None:
    outbox.enqueue_many([tasks.slow.s("a", 2), tasks.note_once.s("b"), tasks.note_once.s("c")])
    with relay(env=QUICK):
        with worker(concurrency=1, env=QUICK, name="first") as first:
            await_(lambda: effects.count("a-begun") == 1, "the first is running")
            began = time.monotonic()
            assert first.stop() == 0
            assert time.monotonic() - began < 15
        assert effects.count("a-ended") == 1
        with worker(concurrency=1, env=QUICK, name="second"):
            wait_until_settled(30)
    assert effects.count("a-begun") == 1
    assert (effects.count("b"), effects.count("c")) == (1, 1)


@pytest.mark.proof
def test_sigquit_lets_a_short_run_end_and_hands_the_rest_to_others() -> None:
    """The soft shutdown: what is not done within `worker_soft_shutdown_timeout` would be given back, too."""
    outbox.enqueue_many([tasks.until_told.s("a"), tasks.note_once.s("b"), tasks.note_once.s("c")])
    with relay(env=QUICK):
        with worker(concurrency=1, env=QUICK, name="first") as first:
            await_(lambda: effects.count("a-begun") == 1, "the first is running")
            first.signal(signal.SIGQUIT)
            await_(lambda: "soft shutdown" in first.output().lower(), "the shutdown begins")
            effects.add("a-told")
            first.popen.wait(15)
        assert effects.count("a-ended") == 1
        with worker(concurrency=1, env=QUICK, name="second"):
            wait_until_settled(30)
    assert effects.count("a-begun") == 1
    assert (effects.count("b"), effects.count("c")) == (1, 1)


@pytest.mark.described("a worker that dies in the middle of its job: another one finishes it")
@pytest.mark.promise(
    "P2",
    "a worker is killed at the end of its supervisor's grace period",
    "another worker finishes its messages",
)
def test_what_runs_at_the_end_of_grace_is_finished_elsewhere(
    admin_client: Client, settings: Settings
) -> None:
    """What was cancelled is not run.

    A supervisor's SIGTERM, and its SIGKILL while the warm shutdown waits. Celery would forget a revocation.
    """
    settings.OUTBOX_MARGIN, settings.OUTBOX_WORKER_TIMEOUT = 1, 3
    outbox.enqueue(tasks.until_told.s("held"))

    with relaying():
        with worker(concurrency=1, env=QUICK, name="first") as first:
            await_(lambda: effects.count("held-begun") == 1, "it runs")
            cancelled = outbox.enqueue(tasks.note_once.s("cancelled"))
            row = OutboxMessage.objects.filter(message_id=cancelled)
            await_(lambda: row.get().status == "published", "a copy waits in the broker")
            chosen = {"action": "cancel_selected", "_selected_action": [row.get().pk]}
            admin_client.post("/admin/outbox/outboxmessage/", chosen)

            first.signal(signal.SIGTERM)
            await_(lambda: "Warm shutdown" in first.output(), "the shutdown begins, and waits")
            first.kill_group()

        effects.add("held-told")
        with worker(concurrency=1, env=QUICK, name="second"):
            wait_until_settled(30)
            await_(lambda: row.get().duplicates == 1, "the copy of the cancelled one is delivered")

    assert (effects.count("held-begun"), effects.count("held-ended")) == (2, 1)
    assert OutboxMessage.objects.get(task="tests.support.tasks.until_told").status == "done"
    assert row.get().status == "cancelled"
    assert effects.count("cancelled") == 0
