"""Behind PgBouncer in transaction mode, where each transaction of a client may run in another session of the server."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import InterfaceError, OperationalError, connection, transaction
from pytest_django import Settings

import outbox
from dlq.models import DeadLetter
from lab.stack.pgbouncer import PgBouncer
from outbox import claims
from outbox.checks import check_connections, serious
from outbox.database import is_not_now
from outbox.models import OutboxMessage, RelayProcess
from outbox.testing import drain, wait_until_settled
from tests.support import effects, tasks
from tests.support.database import another_session, lose_connection
from tests.support.pooler_fixture import a_pooler, through
from tests.support.processes import await_, relay, started, worker

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clean")]

TIMEOUTS_ARE_OFF = (
    "outbox.E006: lock_timeout and idle_in_transaction_session_timeout must not be 0 in sessions of the database: a pooler"
    " drops what the options of DATABASES ask for. Execute ALTER ROLE CURRENT_USER SET lock_timeout = '10000';"
    " ALTER ROLE CURRENT_USER SET idle_in_transaction_session_timeout = '30000'; and let the pooler reconnect"
    " (docs/operations.md: Poolers)"
)


def test_processes_that_share_three_sessions_lose_double_and_dead_letter_no_message(
    pooler: PgBouncer,
) -> None:
    env = {"DATABASE_URL": pooler.url(), "HOLDFAST_TEST_TICK": "1"}
    names = [f"m{n}" for n in range(300)]
    wrong = [f"w{n}" for n in range(10)]
    deadly = [f"d{n}" for n in range(3)]
    with ExitStack() as processes:
        for name in ("one", "two"):
            processes.enter_context(worker(env=env, concurrency=3, name=name))
        for _ in range(2):
            processes.enter_context(relay(env=env))
        beat = ("-m", "celery", "-A", "config", "beat", "--loglevel", "INFO")
        processes.enter_context(started(beat, env=env, ready="beat: Starting"))
        with through(pooler):
            for name in names[:100]:
                outbox.enqueue(tasks.note_once.s(name))
            outbox.enqueue_many([tasks.note_once.s(name) for name in names[100:200]])
            outbox.enqueue_many([tasks.note.s(name) for name in names[200:]])
            # The first end in the child, the others in the worker's parent.
            outbox.enqueue_many([tasks.permanently_wrong.s(name) for name in wrong])
            outbox.enqueue_many([tasks.kills_its_process.s(name) for name in deadly])
            await_(lambda: effects.count("tick") > 1, "beat's messages run")
            await_(lambda: len(effects.names("m")) >= len(names), "all have run", 60)
            await_(lambda: DeadLetter.objects.count() == len(wrong + deadly), "the failures are recorded", 60)
    wait_until_settled()
    assert sorted(effects.names("m")) == sorted(names)
    assert sorted(effects.names("w")) == sorted(wrong)
    well = OutboxMessage.objects.filter(task__in=(tasks.note.name, tasks.note_once.name))
    assert [row for row in well.values_list("status", "attempts", "errors") if row != ("done", 1, [])] == []
    dead = {
        str(each) for each in OutboxMessage.objects.filter(status="dead").values_list("message_id", flat=True)
    }
    assert set(DeadLetter.objects.values_list("message_id", flat=True)) == dead
    assert len(dead) == len(wrong + deadly)
    assert not RelayProcess.objects.exists()


def test_a_relay_behind_a_pooler_polls_and_never_asks_to_be_woken(pooler: PgBouncer) -> None:
    """NOTIFY would reach whichever client the session belongs to at that moment, or none."""
    idle_seen: list[Any] = []
    with relay(env={"DATABASE_URL": pooler.url()}):
        latencies = []
        for n in range(5):
            await_(lambda: RelayProcess.objects.exists(), "the relay says that it lives")
            idle_seen += RelayProcess.objects.filter(idle=True)
            began = time.monotonic()
            outbox.enqueue(tasks.note.s(f"{n}"))
            await_(lambda n=n: OutboxMessage.objects.filter(status="published").count() > n, "published")  # type: ignore[misc]
            latencies.append(time.monotonic() - began)
    assert idle_seen == []
    assert sorted(latencies)[2] < 0.5


@pytest.mark.promise(
    "P4",
    "a pooler drops the timeouts of its clients",
    "the process ends with one line that says what to execute",
)
def test_a_process_whose_timeouts_the_pooler_drops_ends(
    unprepared_pooler: PgBouncer,
) -> None:
    """With one line that says what to execute."""
    with through(unprepared_pooler):
        assert serious() == [TIMEOUTS_ARE_OFF]
        with pytest.raises(CommandError) as ended:
            call_command("outbox_relay")
        assert str(ended.value) == TIMEOUTS_ARE_OFF


def test_what_that_line_says_is_all_that_there_is_to_do(unprepared_pooler: PgBouncer) -> None:
    statements = TIMEOUTS_ARE_OFF.partition("Execute ")[2].partition("; and")[0]
    try:
        with through(unprepared_pooler):
            with connection.cursor() as cursor:
                cursor.execute(statements)
            unprepared_pooler.control("RECONNECT")
            assert serious() == []
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER ROLE CURRENT_USER RESET ALL")
        unprepared_pooler.control("RECONNECT")


def test_a_process_runs_nothing_before_its_timeouts_are_there(
    unprepared_pooler: PgBouncer,
) -> None:
    """The database was down when it started, so that nothing could be read back then."""
    message_id = outbox.enqueue(tasks.note.s("m"))
    with through(unprepared_pooler):
        for _ in range(2):
            with pytest.raises(OperationalError, match="lock_timeout and idle_in_transaction") as refused:
                claims.claim(message_id, 0, lease_s=9, worker="", max_deliveries=5)
            assert is_not_now(refused.value), "the worker waits, and the message is not at fault"
    assert OutboxMessage.objects.get().deliveries == 0


@pytest.mark.promise(
    "P2",
    "a pooler, or the session that it lent, ends in the middle of a run",
    "the run is rolled back and runs again",
)
@pytest.mark.parametrize("struck", ["server", "pooler"])
def test_a_session_that_ends_under_a_message_is_not_its_fault(pooler: PgBouncer, struck: str) -> None:
    """PgBouncer has words and a code of its own for what happened to the server."""
    message_id = outbox.enqueue(tasks.note_once.s("m"))

    @transaction.atomic
    def run() -> None:
        claims.lock(message_id, 0, frozen_s=9, max_deliveries=5)
        {"server": lose_connection, "pooler": pooler.kill}[struck]()
        effects.add("m")

    with through(pooler):
        with pytest.raises((OperationalError, InterfaceError)) as lost:
            run()
        assert is_not_now(lost.value), lost.value
        if struck == "pooler":
            pooler.start()
        connection.close()
        assert drain() == 1
    assert effects.count("m") == 1


def test_a_message_that_gets_no_session_is_not_at_fault() -> None:
    message_id = outbox.enqueue(tasks.note.s("m"))
    with a_pooler({"query_wait_timeout": "1", "default_pool_size": "1"}) as pooler, through(pooler):
        with another_session() as holder:
            holder.cursor().execute("SELECT 1")  # in a transaction that stays open
            with pytest.raises(
                (OperationalError, InterfaceError), match=r"query_wait_timeout|closed the connection"
            ) as ended:
                claims.claim(message_id, 0, lease_s=9, worker="", max_deliveries=5)
        assert is_not_now(ended.value)
    assert OutboxMessage.objects.get().deliveries == 0


def test_a_process_whose_options_the_pooler_refuses_ends() -> None:
    """With one line that says so."""
    settings = {"ignore_startup_parameters": "extra_float_digits"}
    with a_pooler(settings) as pooler, through(pooler):
        assert serious() == [
            "outbox.E007: The pooler refuses connections with options: add `options` to ignore_startup_parameters of"
            " PgBouncer (docs/operations.md: Poolers)"
        ]


def test_a_timeout_that_the_databases_url_switches_off_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    options = connection.settings_dict["OPTIONS"]["options"]
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "options", f"{options} -c lock_timeout=0")
    connection.close()
    try:
        assert serious() == [
            "outbox.E006: lock_timeout must not be 0 in the options of DATABASES: a wait would have no end"
        ]
    finally:
        connection.close()


def test_clients_of_a_pooler_may_be_more_than_the_server_has_sessions(
    pooler: PgBouncer, settings: Settings
) -> None:
    settings.DATABASE_CONNECTIONS = 1000
    with through(pooler):
        assert check_connections() == []
