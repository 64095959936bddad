"""The relay's statements wait for no running message, find their rows by an index, and keep a group's order."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from celery import current_app
from django.conf import LazySettings
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

import outbox
from outbox import claims, dead_lettering, delivery, groups, transitions
from outbox.models import OutboxMessage, RelayProcess
from outbox.relay import queries, rescuer
from outbox.relay.loop import Relay
from outbox.relay.queue_faults import Faults
from outbox.retention import prune_once
from outbox.stats import stats
from outbox.testing import run_here
from tests.outbox.test_interleavings import claim, elsewhere, published, row
from tests.support import settling_tasks, tasks
from tests.support.chosen_broker import Broker
from tests.support.processes import await_

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clean")]


@contextmanager
def running(message_id: uuid.UUID) -> Iterator[None]:
    """A transactional run of the message holds its row meanwhile, and is rolled back at the end."""
    held, done = threading.Event(), threading.Event()

    def run() -> None:
        with transaction.atomic():
            assert isinstance(claims.lock(message_id, 1, frozen_s=60, max_deliveries=5), claims.Claimed)
            held.set()
            assert done.wait(20)
            transaction.set_rollback(True)

    with elsewhere(run):
        assert held.wait(20)
        # Who waits for the row fails here instead of hanging.
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '1s'")
        try:
            yield
        finally:
            done.set()
            with connection.cursor() as cursor:
                cursor.execute("RESET lock_timeout")


def test_the_rescuer_does_not_wait_for_a_run_that_holds_its_row() -> None:
    message_id, lost = published(tasks.note_once.s("a")), published(tasks.note_once.s("b"))
    with running(message_id):
        assert queries.requeue_unstarted("default", seen_empty=True, margin_s=0) == 1
        assert queries.requeue_abandoned(worker_timeout_s=0, judge_workers=True) == 0
    assert (row(message_id).status, row(lost).status) == ("published", "pending")


def test_a_revert_does_not_wait_for_a_run_that_holds_its_row() -> None:
    outbox.enqueue_many([tasks.note_once.s("a"), tasks.note_once.s("b")])
    batch = queries.mark("default", 10)
    with running(uuid.UUID(batch[0].message_id)):
        assert queries.revert(batch) == 1


def durability() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SHOW synchronous_commit")
        return str(cursor.fetchone()[0])


def test_only_a_mark_does_not_wait_for_the_disk() -> None:
    """What follows it does."""
    before = durability()
    for pending in (1, 0):
        with transaction.atomic():
            assert len(queries.mark("default", 10)) == 0
            outbox.enqueue_many([tasks.note.s("a")] * pending)
            assert len(queries.mark("default", 10)) == pending
            assert durability() == "off"
        assert durability() == before == "on"


def test_a_redelivered_copy_does_not_jump_the_back_off() -> None:
    """It does not wait for the run."""
    message_id = published(tasks.note_once.s("a"))
    with running(message_id):
        assert claim(message_id, worker="w2") == claims.Refused("leased")
        redelivered = {"generation": 1, "publish": 2}
        name = "tests.support.tasks.note_once"
        assert run_here(str(message_id), wire=redelivered, task=name, queue="default") == delivery.SKIPPED
    assert row(message_id).attempts == 0


def test_a_late_commit_does_not_overtake_its_groups_dead_message() -> None:
    begun, commit = threading.Event(), threading.Event()
    ids: list[uuid.UUID] = []

    def late() -> None:
        with transaction.atomic():
            ids.append(outbox.enqueue(tasks.note.s("late"), ordering_key="g"))
            begun.set()
            assert commit.wait(20)

    with elsewhere(late):
        assert begun.wait(20)
        first = outbox.enqueue(tasks.note.s("first"), ordering_key="g")
        assert groups.promote_heads() == 1
        queries.mark("default", 10)
        assert dead_lettering.dead_letter_worker_failure(
            first, 1, dead_lettering.Failure("a bug"), worker=None
        )
        commit.set()
    assert groups.promote_heads() == 0
    assert row(ids[0]).status == "blocked"
    assert transitions.replay(first)
    assert groups.promote_heads() == 1


def test_no_pass_reads_the_whole_table() -> None:
    outbox.enqueue_many([tasks.note.s("a")] * 2_000, delay=3_600)
    done(2_000)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE outbox_outboxmessage")
    with transaction.atomic(), connection.cursor() as cursor:
        queries.take({"default": 10})
        assert queries.promote_due(500) == 0
        assert prune_once(older_than_s=60) == 0
        queries.at_risk(5)
        queries.requeue_unstarted("default", seen_empty=True, margin_s=5)
        cursor.execute(
            "SELECT seq_scan, idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'outbox_outboxmessage'"
        )
        scans, fetched = cursor.fetchone()
    assert scans == 0
    assert fetched < 100
    assert stats()["queues"]["default"]["scheduled"] == 2_000


def done(count: int) -> None:
    """Settled messages."""
    now = timezone.now()
    OutboxMessage.objects.bulk_create(
        OutboxMessage(task="t", queue="default", status="done", done_at=now) for _ in range(count)
    )


def test_an_idle_relay_whose_connection_breaks_goes_on() -> None:
    broker, stop, raw = Broker(), threading.Event(), []

    def run() -> None:
        relaying = Relay(current_app._get_current_object(), publisher=broker)
        connection.ensure_connection()
        raw.append(connection.connection)
        relaying.run(stop)

    with elsewhere(run):
        try:
            await_(lambda: RelayProcess.objects.filter(idle=True).exists(), "the relay is idle")
            # As of a server that crashed: no word of farewell, which Django's own cursors would have translated.
            with socket.fromfd(raw[0].fileno(), socket.AF_INET, socket.SOCK_STREAM) as wire:
                wire.shutdown(socket.SHUT_RDWR)
            outbox.enqueue(tasks.note.s("a"))
            await_(lambda: broker.sent, "the relay publishes again")
        finally:
            stop.set()


def test_a_relay_that_stood_still_calls_no_worker_dead(
    monkeypatch: pytest.MonkeyPatch, settings: LazySettings
) -> None:
    settings.OUTBOX_WORKER_TIMEOUT = 0
    clock = [1_000.0]
    monkeypatch.setattr(rescuer.time, "monotonic", lambda: clock[0])
    rescuing = rescuer.Rescuer(Broker(), Faults())
    message_id = published()
    assert isinstance(claim(message_id), claims.Claimed)
    settings.OUTBOX_WORKER_TIMEOUT = 6
    with connection.cursor() as cursor:
        cursor.execute("UPDATE outbox_outboxmessage SET started_at = clock_timestamp() - interval '1 minute'")
    clock[0] += 60
    assert rescuing.run_once() == 0
    for _ in range(7):
        clock[0] += 1
        requeued = rescuing.run_once()
    assert requeued == 1
    assert row(message_id).status == "pending"


def test_rescue_of_an_idle_system_is_one_statement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Processes that are gone are forgotten now and then."""
    clock = [1_000.0]
    monkeypatch.setattr(rescuer.time, "monotonic", lambda: clock[0])
    rescuing = rescuer.Rescuer(Broker(), Faults())
    rescuing.run_once()
    RelayProcess.objects.create(incarnation=uuid.uuid4(), seen_at=timezone.now() - timedelta(minutes=2))
    with CaptureQueriesContext(connection) as passes:
        for _ in range(9):
            clock[0] += 1
            assert rescuing.run_once() == 0
    assert len(passes) == 9
    assert RelayProcess.objects.exists()
    clock[0] += 1
    rescuing.run_once()
    assert not RelayProcess.objects.exists()


def test_an_idle_relay_costs_the_database_two_statements_a_second() -> None:
    relaying, stop, statements = (
        Relay(current_app._get_current_object(), publisher=Broker()),
        threading.Event(),
        [],
    )

    def run() -> None:
        def count(execute: Any, sql: str, *rest: Any) -> Any:
            statements.append(sql)
            return execute(sql, *rest)

        with connection.execute_wrapper(count):
            relaying.run(stop)

    with elsewhere(run):
        await_(lambda: RelayProcess.objects.filter(idle=True).exists(), "the relay is idle")
        time.sleep(0.1)
        before = len(statements)
        time.sleep(3)
        idle = statements[before:]
        stop.set()
    assert len(idle) <= 2 * 4, idle


def test_a_child_whose_id_is_taken_is_refused_early() -> None:
    """Before its parent has done its work."""
    taken = outbox.enqueue(tasks.note.s("a"))
    parent = published(settling_tasks.parent_of.s(str(taken)))
    run_here(
        str(parent), wire={"generation": 1}, task="tests.support.settling_tasks.parent_of", queue="default"
    )
    assert row(parent).status == "dead"
    assert row(parent).errors[-1]["error"].startswith("EnqueueError")
