"""Each transition against the interleaving that its guard exists for, on real concurrent connections."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import OperationalError, transaction

from dlq.models import DeadLetter
from outbox import claims, dead_lettering, delivery, stats, transitions
from outbox.models import OutboxMessage
from outbox.relay import queries
from outbox.rows import NewMessage
from outbox.testing import run_here
from outbox.worker_failure import worker_failure
from tests.support import effects, tasks
from tests.support.messages import asked_for, claim, elsewhere, published, row
from tests.support.processes import await_

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clean")]


NOTE = "tests.support.tasks.note"


def test_a_second_copy_finds_the_first_ones_lease_and_does_nothing() -> None:
    message_id = published()
    assert isinstance(claim(message_id), claims.Claimed)
    assert claim(message_id, worker="w2") == claims.Refused("leased")


def test_a_second_copy_of_a_transactional_task_does_not_wait() -> None:
    """It finds the row locked."""
    message_id = published(tasks.note_once.s("a"))
    held, done = threading.Event(), threading.Event()

    def first() -> None:
        with transaction.atomic():
            claimed = claims.lock(message_id, 1, frozen_s=60, max_deliveries=5)
            assert isinstance(claimed, claims.Claimed)
            held.set()
            assert done.wait(20)
            effects.add("a")
            assert transitions.settle(claimed)

    with elsewhere(first):
        assert held.wait(20)
        assert (
            run_here(
                str(message_id), wire={"generation": 1}, task="tests.support.tasks.note_once", queue="default"
            )
            == delivery.SKIPPED
        )
        done.set()
    assert effects.names() == ["a"]
    assert row(message_id).status == "done"
    # The row was held, so that nothing could be written on it.
    assert stats.stats()["skipped"] == {
        "duplicate": 0,
        "leased": 1,
        "missing": 0,
        "poison": 0,
        "mismatch": 0,
    }


@pytest.mark.promise(
    "P3", "a run is frozen past its message's lease", "it can neither settle nor leave children"
)
def test_a_run_frozen_past_its_lease_can_neither_settle_nor_leave_children() -> None:
    message_id = published()
    frozen = claim(message_id, lease_s=0)
    successor = claim(message_id, worker="w2")
    assert isinstance(successor, claims.Claimed)

    child = _child_row()

    assert transitions.settle(frozen, [child]) is False
    assert transitions.retry(frozen, delay_s=0, error="late") is False
    assert not OutboxMessage.objects.filter(message_id=child.message_id).exists()

    assert transitions.settle(successor) is True


def _child_row() -> NewMessage:
    from outbox.enqueue import new_message

    return new_message(tasks.note.s("child"), {})


@pytest.mark.promise(
    "P4", "the holder of a row lock is frozen in its transaction", "the database ends its session"
)
def test_a_holder_frozen_inside_its_transaction_is_ended_by_the_database() -> None:
    message_id = published(tasks.note_once.s("a"))
    held, go = threading.Event(), threading.Event()
    outcome: list[BaseException] = []

    def frozen() -> None:
        try:
            with transaction.atomic():
                claimed = claims.lock(message_id, 1, frozen_s=0.3, max_deliveries=5)
                assert isinstance(claimed, claims.Claimed)
                effects.add("a")
                held.set()
                assert go.wait(20)
                transitions.settle(claimed)
        except Exception as error:
            outcome.append(error)

    with elsewhere(frozen):
        assert held.wait(20)
        # The second copy was published again, so that it claims in a transaction of its own.
        await_(lambda: isinstance(claim(message_id), claims.Claimed), "the frozen holder's lock is gone")
        go.set()

    assert outcome, "the frozen holder committed"
    assert effects.names() == []


@pytest.mark.promise(
    "P2",
    "a worker's child is killed, or calls `sys.exit()`",
    "the parent schedules the message again at once, and its delivery stays counted",
)
def test_a_lost_child_gives_back_only_its_own_workers_lease() -> None:
    message_id = published()
    claim(message_id, lease_s=0, worker="w1")
    successor = claim(message_id, worker="w2")

    assert transitions.lost(message_id, 1, worker="w1", error="WorkerLost") is False
    assert transitions.settle(successor)


@pytest.mark.promise(
    "P5",
    "a transactional run loses its database each time",
    "a dead letter after `max_deliveries`",
    celery="runs it again forever",
)
def test_losing_the_database_in_each_run_ends_after_max_deliveries() -> None:
    """The task is transactional.

    Its own transaction can count nothing, and the first copy of a new offer looks like any first copy.
    """
    message_id = published(tasks.note_once.s("a"))
    wire = {"generation": 1, "publish": 1}

    for _ in range(tasks.note_once.max_deliveries):
        assert row(message_id).status == "published"
        assert transitions.lost(message_id, 1, worker=None, error="DatabaseUnavailable", delay_s=0)
        assert queries.promote_due(1) == len(queries.mark("default", 1)) == 1

    run_here(str(message_id), wire=wire, task="tests.support.tasks.note_once", queue="default")

    assert row(message_id).status == "dead"
    assert "PoisonMessage" in row(message_id).errors[-1]["error"]
    assert "reported last: DatabaseUnavailable" in row(message_id).errors[-1]["error"]
    assert effects.names() == []


@pytest.mark.promise(
    "P5",
    "a run ends in the worker's parent with an error of the database, `max_deliveries` times",
    "a dead letter that names the error",
)
def test_a_dead_letter_names_the_database_error_in_the_parent() -> None:
    """The error ended the run in the worker's parent."""
    message_id = published()
    error = OperationalError("server closed the connection unexpectedly")
    told = {"exception": error, "error": str(error), "traceback": "as the child saw it", "lost": False}

    verdicts = []
    for _ in range(tasks.note.max_deliveries):
        verdicts.append(worker_failure(message_id=str(message_id), generation=1, **told))  # type: ignore[arg-type]
        OutboxMessage.objects.filter(status="scheduled").update(status="pending")

    assert verdicts == ["scheduled"] * 4 + ["dead"]
    dead_letter = DeadLetter.objects.get()
    assert dead_letter.exception == "django.db.utils.OperationalError"
    assert dead_letter.traceback == "as the child saw it"


@pytest.mark.promise(
    "P3", "a child receives a second copy of what its sibling runs", "the sibling keeps its lease"
)
@pytest.mark.parametrize("ending", [{"lost": True}, {"lost": False}])
def test_a_killed_second_copy_takes_no_lease_of_a_sibling(
    ending: dict[str, bool],
) -> None:
    """The sibling runs the first copy, in the same worker."""
    from outbox import heartbeat

    message_id = published()
    told = {"exception": None, "error": "WorkerLost", "traceback": "", **ending}
    heartbeat._born()
    try:
        sibling = claim(message_id, worker=heartbeat.identity(pid=101))
        for pid in (102, None):
            assert worker_failure(message_id=str(message_id), generation=1, pid=pid, **told) == "settled"
        assert transitions.settle(sibling), "the sibling's run was taken from it"

        own = published()
        claim(own, worker=heartbeat.identity(pid=102))
        assert worker_failure(message_id=str(own), generation=1, pid=102, **told) == (
            "scheduled" if ending["lost"] else "dead"
        )
    finally:
        heartbeat._incarnation = None


def test_a_run_that_fails_after_losing_its_message_reports_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It dead-letters nothing either."""
    message_id = published(tasks.transactional_wrong.s("a"))
    dead_letter_failed, successors = dead_lettering.dead_letter_failed, []

    def taken_over_before(*args: Any, **kwargs: Any) -> bool:
        # The failed run's transaction is rolled back, and with it the lock that was its claim.
        successors.append(claim(message_id, worker="w2"))
        return dead_letter_failed(*args, **kwargs)

    monkeypatch.setattr(dead_lettering, "dead_letter_failed", taken_over_before)
    outcome = run_here(
        str(message_id),
        wire={"generation": 1, "publish": 1},
        task="tests.support.tasks.transactional_wrong",
        queue="default",
    )
    assert outcome == delivery.SKIPPED
    assert row(message_id).status == "published"
    assert transitions.settle(successors[0])


def test_an_error_that_postgresql_cannot_store_is_still_a_retry() -> None:
    message_id = published()
    assert transitions.retry(claim(message_id), delay_s=0, error="\x00 and \ud800")
    assert [error["error"] for error in row(message_id).errors] == ["\\0 and \\ud800"]


def test_a_copy_whose_row_is_gone_is_skipped_and_counted() -> None:
    message_id = published()
    OutboxMessage.objects.all().delete()
    copy = delivery.Copy(message_id, generation=1, again=False)
    for _ in range(2):
        with asked_for(tasks.note, id=str(message_id), delivery_info={}):
            assert delivery.deliver(tasks.note, copy) == delivery.SKIPPED
    assert effects.names() == []
    assert stats.stats()["skipped"] == {
        "duplicate": 0,
        "leased": 0,
        "missing": 2,
        "poison": 0,
        "mismatch": 0,
    }
