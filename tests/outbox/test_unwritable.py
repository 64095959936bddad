"""A database that answers and cannot write now: disk full, read-only, a standby that is gone. No message dies of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from django.db import Error, connection

import outbox
from dlq.models import DeadLetter
from outbox.database import About, about, sqlstate
from outbox.models import OutboxMessage
from outbox.testing import wait_until_settled
from tests.support import effects, limited_tasks, tasks
from tests.support.processes import await_, relay, worker
from tests.support.servers import refusing, server_set

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clean")]

QUICK = {"OUTBOX_MARGIN": "1", "OUTBOX_WORKER_TIMEOUT": "3"}


@pytest.mark.promise(
    "P5",
    "the database reports an error that is not known here",
    "it runs again after growing waits, its delivery counted; a dead letter that names it after `max_deliveries`",
    celery="a failure like any other",
)
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("53100", About.SERVER),
        ("53200", About.SERVER),
        ("53400", About.SERVER),
        ("58030", About.SERVER),
        ("25006", About.SERVER),
        ("55P03", About.MOMENT),
        ("40001", About.MOMENT),
        ("40P01", About.MOMENT),
        ("57P01", About.CONNECTION),
        ("28P01", About.CONNECTION),
        ("08006", About.CONNECTION),
        ("57014", About.RUN),
        ("25P03", About.RUN),
        ("08P01", About.RUN),
        ("0A000", About.RUN),
        ("XX000", About.UNKNOWN),
        ("F0000", About.UNKNOWN),
        ("22003", About.STATEMENT),
        ("23505", About.STATEMENT),
        ("42P01", About.STATEMENT),
        ("54000", About.STATEMENT),
    ],
)
def test_an_errors_code_says_what_it_is_about(code: str, kind: About) -> None:
    """Whatever its class."""
    with pytest.raises(Error) as raised, connection.cursor() as cursor:
        cursor.execute(f"DO $$ BEGIN RAISE EXCEPTION 'refused here' USING ERRCODE = '{code}'; END $$")
    assert sqlstate(raised.value) == code
    assert about(raised.value) is kind


@pytest.mark.promise(
    "P5",
    "the database is out of disk or memory, or read-only",
    "deferred by up to 30 s each time, without spending an attempt or a delivery, until it succeeds",
    celery="a failure like any other",
)
@pytest.mark.parametrize("code", ["53100", "53200", "25006"])
def test_work_that_finds_no_space_is_done_later(code: str) -> None:
    """It spends nothing until there is space."""
    names = [f"m{n}" for n in range(20)]
    tried = OutboxMessage.objects.filter(status="scheduled", errors__0__error__icontains="refused here")
    with relay(env=QUICK), worker(concurrency=2, env=QUICK) as process:
        with refusing("outbox_test_effect", code):
            outbox.enqueue_many([tasks.note_once.s(name) for name in names[:10]])
            outbox.enqueue_many([tasks.note.s(name) for name in names[10:]])
            await_(lambda: tried.count() == 20, "each has been tried", 60)
            assert set(tried.values_list("attempts", "deliveries")) == {(0, 0)}
        # An operator who does not want to wait for the rest of the delay.
        OutboxMessage.objects.filter(status="scheduled").update(deliver_at="2020-01-01T00:00Z")
        wait_until_settled(60)
        assert process.alive()
    assert sorted(effects.names()) == sorted(names)
    assert set(OutboxMessage.objects.values_list("status", "attempts")) == {("done", 1)}
    assert not DeadLetter.objects.exists()


@pytest.mark.promise(
    "P5",
    "a run reports a deadlock, a lock timeout, a shutdown or a refused login of the database",
    "deferred by up to 30 s each time, without spending an attempt or a delivery, until it succeeds",
    celery="a failure like any other",
)
def test_an_error_about_others_spends_nothing_however_often() -> None:
    names = [
        f"{code} {kind}"
        for code in ("57P01", "57P03", "28P01", "08006", "40001", "40P01", "55P03")
        for kind in ("", "transactional")
    ]
    tried = OutboxMessage.objects.filter(status="scheduled", errors__2__error__icontains="refused here")
    with relay(env=QUICK), worker(concurrency=2, env=QUICK) as process:
        with refusing("outbox_test_effect"):
            outbox.enqueue_many([(tasks.note_once if "t" in name else tasks.note).s(name) for name in names])
            await_(lambda: tried.count() == len(names), "each has been tried three times", 60)
            assert set(tried.values_list("attempts", "deliveries")) == {(0, 0)}
        OutboxMessage.objects.filter(status="scheduled").update(deliver_at="2020-01-01T00:00Z")
        wait_until_settled(60)
        assert process.alive()
    assert sorted(effects.names()) == sorted(names)
    assert set(OutboxMessage.objects.values_list("status", "attempts")) == {("done", 1)}
    assert not DeadLetter.objects.exists()


@pytest.mark.promise(
    "P5",
    "the database reports an error that is not known here",
    "it runs again after growing waits, its delivery counted; a dead letter that names it after `max_deliveries`",
    celery="a failure like any other",
)
def test_an_error_that_may_be_the_runs_own_is_dead_lettered() -> None:
    """After minutes; the dead letter names it."""
    waited: dict[int, list[float]] = {}

    def are_dead() -> bool:
        for message in OutboxMessage.objects.filter(status="scheduled"):
            reported = datetime.fromisoformat(message.errors[-1]["at"])
            waits_s = (message.deliver_at - reported).total_seconds()
            if waits_s < 0:  # This one is let be due.
                continue
            waited.setdefault(message.deliveries, []).append(waits_s)
            OutboxMessage.objects.filter(pk=message.pk, status="scheduled").update(
                deliver_at="2020-01-01T00:00Z"
            )
        return not OutboxMessage.objects.exclude(status="dead").exists()

    with relay(env=QUICK), worker(concurrency=2, env=QUICK), refusing("outbox_test_effect"):
        for task in (tasks.note, tasks.note_once):
            outbox.enqueue_many([task.s(code) for code in ("XX000", "57014")])
        await_(are_dead, "they are dead", 60)
    assert set(waited) >= {2, 3, 4}
    for deliveries, waits in waited.items():
        longest = 6 ** (deliveries - 1)
        assert all(longest / 2 - 0.1 < waits_s <= longest for waits_s in waits), waited
    assert DeadLetter.objects.count() == 4
    for dead_letter in DeadLetter.objects.all():
        (code,) = dead_letter.args
        name = {"XX000": "InternalError", "57014": "OperationalError"}[code]
        assert (dead_letter.cause, dead_letter.exception) == ("failed", f"django.db.utils.{name}")
        assert dead_letter.error.startswith(f"{name} (SQLSTATE {code}): refused here")
        assert "in add\n" in dead_letter.traceback


@pytest.mark.promise(
    "P4",
    "a message crashes its backend, and so the whole database, each time that it runs",
    "a dead letter that names the error after `max_deliveries`; the worker lives",
)
@pytest.mark.proof
def test_a_message_that_crashes_its_backend_is_dead_after_max_deliveries() -> None:
    with relay(env=QUICK), worker(concurrency=1, env=QUICK) as process:
        message_id = outbox.enqueue(tasks.crashes_its_backend.s("crash"))
        process.wait_for_output("failed for good", timeout_s=60)
        connection.close()
        outbox.enqueue(tasks.note.s("after"))
        wait_until_settled(60)
        assert process.alive()
    assert effects.names() == ["crash", "crash", "after"]
    dead_letter = DeadLetter.objects.get(message_id=str(message_id))
    assert dead_letter.exception == "django.db.utils.OperationalError"


def test_a_read_only_database_is_waited_for_by_relay_and_worker_alike() -> None:
    with relay(env=QUICK) as relaying, worker(concurrency=1, env=QUICK) as process:
        outbox.enqueue(tasks.note.s("before"))
        wait_until_settled(30)
        with server_set("default_transaction_read_only", "on"):
            outbox.enqueue_many([tasks.note.s("a"), tasks.note_once.s("b"), tasks.slow.s("c", 1)])
            relaying.wait_for_output("read-only transaction")
            process.wait_for_output("The heartbeat could not be written")
        wait_until_settled(60)
        assert relaying.alive()
        assert process.alive()
    assert effects.count("a") == effects.count("b") == effects.count("c-ended") == 1
    assert not OutboxMessage.objects.exclude(status="done").exists()


@pytest.mark.promise(
    "P4",
    "the synchronous standby is gone for longer than a task's hard limit",
    (
        "the run whose COMMIT waited is lost and not dead; a statement of its own that never ends is dead "
        "after `max_deliveries`"
    ),
)
@pytest.mark.proof
@pytest.mark.parametrize("task", [limited_tasks.note_hard, limited_tasks.note_once_hard])
def test_a_run_that_waits_for_a_standby_is_not_dead(
    task: Any,
) -> None:
    """It waits in its commit, and is lost at its time limit."""
    with relay(env=QUICK), worker(concurrency=1, env=QUICK) as process:
        outbox.enqueue(tasks.note.s("before"))
        wait_until_settled(30)
        with server_set("synchronous_standby_names", "'gone'"):
            message_id = outbox.enqueue(task.s("a"))
            process.wait_for_output("its connection is cut")
            process.wait_for_output("wait unacknowledged to be recorded")
        wait_until_settled(60)
        assert process.alive()
    message = OutboxMessage.objects.get(message_id=message_id)
    assert (message.status, message.attempts) == ("done", 1)
    assert not DeadLetter.objects.exists()
    # Transactional, its effect and its end are one COMMIT; else the run whose COMMIT was cut may have had its effect.
    assert effects.count("a") == 1 or not task.transactional


@pytest.mark.proof
def test_a_runs_own_endless_statement_is_cut_too() -> None:
    """The message is dead after its deliveries."""
    with relay(env=QUICK), worker(concurrency=1, env=QUICK) as process:
        message_id = outbox.enqueue(limited_tasks.asks_for_ever.s())
        await_(lambda: OutboxMessage.objects.get(message_id=message_id).status == "dead", "it is dead", 60)
        assert process.alive()
    with connection.cursor() as cursor:
        # The server itself does not notice that its client is gone before the statement ends.
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%'"
            " AND pid <> pg_backend_pid()"
        )
    assert DeadLetter.objects.get(message_id=str(message_id)).exception == "django.db.utils.OperationalError"


@pytest.fixture
def asked(client: Any) -> Callable[[str], Any]:
    return lambda path: client.get(path)


def test_a_process_whose_database_cannot_write_is_not_ready(asked: Callable[[str], Any]) -> None:
    assert asked("/readyz").status_code == 200
    with server_set("default_transaction_read_only", "on"):
        answer = asked("/readyz")
        assert (answer.status_code, "read only" in answer.json()["missing"]["database"]) == (503, True)
    assert asked("/readyz").status_code == 200


def test_a_process_whose_database_has_no_space_is_not_ready(
    asked: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the last write were long ago.
    monkeypatch.setattr("monitoring.health._wrote_at", float("-inf"))
    with server_set("temp_file_limit", "0"):
        answer = asked("/readyz")
        assert (answer.status_code, list(answer.json()["missing"])) == (503, ["database"])
    assert asked("/readyz").status_code == 200
