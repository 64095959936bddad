"""Each transition against the interleaving that its guard exists for, on real concurrent connections."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, transaction

import outbox
from outbox import dispatch, execution, journal, selectors
from outbox.models import OutboxMessage
from outbox.testing import drain, run_here, staged
from tests.support import effects, tasks
from tests.support.processes import await_

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clean")]

NOTE = "tests.support.tasks.note"


def row(message_id: uuid.UUID) -> OutboxMessage:
    return OutboxMessage.objects.get(message_id=message_id)


def published(task: Any = None, **options: Any) -> uuid.UUID:
    message_id = outbox.enqueue(task or tasks.note.s("a"), **options)
    dispatch.mark("default", 100)
    return message_id


def claim(message_id: uuid.UUID, *, generation: int = 1, lease_s: float = 60, worker: str = "w1") -> Any:
    return journal.claim(message_id, generation, lease_s=lease_s, worker=worker, max_deliveries=5)


@contextmanager
def elsewhere(step: Callable[[], Any]) -> Iterator[threading.Event]:
    """Run `step` in another thread, on a connection of its own; raises here what it raised there."""
    failure: list[BaseException] = []
    go = threading.Event()

    def run() -> None:
        try:
            step()
        except BaseException as error:
            failure.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    yield go
    thread.join(30)
    assert not thread.is_alive()
    if failure:
        raise failure[0]


@contextmanager
def asked_for(task: Any, **request: Any) -> Iterator[None]:
    task.push_request(**request)
    try:
        yield
    finally:
        task.pop_request()


def test_a_second_copy_finds_the_first_ones_lease_and_does_nothing() -> None:
    message_id = published()
    assert isinstance(claim(message_id), journal.Claimed)
    assert claim(message_id, worker="w2") == journal.Refused("leased")


def test_a_second_copy_of_a_transactional_task_finds_the_row_locked_and_does_not_wait() -> None:
    message_id = published(tasks.note_once.s("a"))
    held, done = threading.Event(), threading.Event()

    def first() -> None:
        with transaction.atomic():
            claimed = journal.lock(message_id, 1, frozen_s=60)
            assert isinstance(claimed, journal.Claimed)
            held.set()
            assert done.wait(20)
            effects.add("a")
            assert journal.settle(claimed)

    with elsewhere(first):
        assert held.wait(20)
        assert (
            run_here(
                str(message_id), wire={"generation": 1}, task="tests.support.tasks.note_once", queue="default"
            )
            == execution.SKIPPED
        )
        done.set()
    assert effects.names() == ["a"]
    assert row(message_id).status == "done"
    # The row was held, so that nothing could be written on it.
    assert selectors.stats()["skipped"] == {"duplicate": 0, "leased": 1, "missing": 0, "poison": 0}


def test_a_run_frozen_past_its_lease_can_neither_settle_nor_leave_children() -> None:
    message_id = published()
    frozen = claim(message_id, lease_s=0)
    successor = claim(message_id, worker="w2")
    assert isinstance(successor, journal.Claimed)
    child = {**_child_row(), "message_id": uuid.uuid4()}
    assert journal.settle(frozen, [child]) is False
    assert journal.retry(frozen, delay_s=0, error="late") is False
    assert not OutboxMessage.objects.filter(message_id=child["message_id"]).exists()
    assert journal.settle(successor) is True


def _child_row() -> dict[str, Any]:
    from outbox.producer import _row

    return _row(tasks.note.s("child"), {})


def test_a_holder_frozen_inside_its_transaction_is_ended_by_the_database() -> None:
    message_id = published(tasks.note_once.s("a"))
    held, go = threading.Event(), threading.Event()
    outcome: list[BaseException] = []

    def frozen() -> None:
        try:
            with transaction.atomic():
                claimed = journal.lock(message_id, 1, frozen_s=0.3)
                assert isinstance(claimed, journal.Claimed)
                effects.add("a")
                held.set()
                assert go.wait(20)
                journal.settle(claimed)
        except Exception as error:
            outcome.append(error)

    with elsewhere(frozen):
        assert held.wait(20)
        # The second copy was published again, so that it claims in a transaction of its own.
        await_(lambda: isinstance(claim(message_id), journal.Claimed), "the frozen holder's lock is gone")
        go.set()
    assert outcome, "the frozen holder committed"
    assert effects.names() == []


def test_a_relay_killed_between_mark_and_publish_delays_the_message_and_loses_nothing() -> None:
    message_id = published()
    assert dispatch.offer_unstarted("default", seen_empty=True, margin_s=60) == 0, "too early to judge"
    assert dispatch.offer_unstarted("default", seen_empty=True, margin_s=0) == 1
    drain()
    assert effects.names() == ["a"]
    assert row(message_id).status == "done"


def test_a_revert_leaves_alone_what_a_worker_has_begun() -> None:
    message_id = outbox.enqueue(tasks.note.s("a"))
    batch = dispatch.mark("default", 10)
    claimed = claim(message_id)
    assert dispatch.revert(batch) == 0
    assert journal.settle(claimed)


def test_a_copy_that_reached_the_broker_before_the_revert_is_run_and_not_published_again() -> None:
    message_id = outbox.enqueue(tasks.note.s("a"))
    batch = dispatch.mark("default", 10)
    assert dispatch.revert(batch) == 1
    claimed = claim(message_id)
    assert isinstance(claimed, journal.Claimed)
    assert dispatch.mark("default", 10) == [], "a relay took what is running"
    assert journal.settle(claimed)


def test_a_settled_message_is_not_offered_again_by_a_sweep_that_judged_it_lost() -> None:
    message_id = published()
    assert journal.settle(claim(message_id))
    assert dispatch.offer_unstarted("default", seen_empty=True, margin_s=0) == 0
    assert dispatch.offer_abandoned(worker_timeout_s=0, judge_workers=True) == 0


def test_a_replay_does_not_race_the_original_that_is_still_in_the_broker() -> None:
    message_id = published(tasks.ordered.s("a", fail=True))
    wire = {"generation": 1, "publish": 1}
    run_here(str(message_id), wire=wire, task="tests.support.tasks.ordered", queue="default")
    assert row(message_id).status == "dead"
    assert journal.rearm(message_id)
    assert not journal.rearm(message_id), "two operators replayed one message"
    run_here(str(message_id), wire=wire, task="tests.support.tasks.ordered", queue="default")
    assert effects.names() == ["a"], "the original's second copy ran beside the replay"


def test_a_dead_workers_message_is_offered_again_only_once_its_heartbeat_is_missing() -> None:
    from outbox import worker

    message_id = published()
    worker._born()
    try:
        worker.write_heartbeat(concurrency=1, active=1)
        claim(message_id, worker=worker.identity())
        assert dispatch.offer_abandoned(worker_timeout_s=30, judge_workers=True) == 0
        assert dispatch.offer_abandoned(worker_timeout_s=0, judge_workers=False) == 0
        assert dispatch.offer_abandoned(worker_timeout_s=0, judge_workers=True) == 1
    finally:
        worker._incarnation = None
    assert row(message_id).status == "pending"


def test_an_overtaken_message_counts_as_lost_and_a_waiting_one_does_not() -> None:
    from outbox import worker

    lost, waiting = published(), published(tasks.note.s("b"))
    OutboxMessage.objects.filter(message_id=lost).update(published_at="2026-01-01T00:00:00Z")
    worker._born()
    try:
        worker._received["default"] = row(waiting).published_at.timestamp()
        worker.write_heartbeat(concurrency=1, active=1)
    finally:
        worker._incarnation = None
        worker._received.clear()
    assert dispatch.offer_unstarted("default", seen_empty=False, margin_s=0.0) == 1
    assert (row(lost).status, row(waiting).status) == ("pending", "published")


def test_two_heads_committed_out_of_order_run_in_commit_order_one_at_a_time() -> None:
    inserted, commit = threading.Event(), threading.Event()

    def early_but_slow() -> None:
        with transaction.atomic():
            outbox.enqueue(tasks.ordered.s("first-inserted"), ordering_key="g")
            inserted.set()
            assert commit.wait(20)

    with elsewhere(early_but_slow):
        assert inserted.wait(20)
        outbox.enqueue(tasks.ordered.s("first-committed"), ordering_key="g")
        assert dispatch.promote_heads() == 1
        commit.set()
    assert dispatch.promote_heads() == 0, "a second head beside the first"
    assert [m.status for m in staged()] == ["blocked", "pending"]
    drain()
    assert effects.names() == ["first-committed", "first-inserted"]


def test_two_relays_mark_each_message_for_one_of_them() -> None:
    outbox.enqueue_many([tasks.note.s(f"{n}") for n in range(50)])
    locked, go = threading.Event(), threading.Event()
    theirs: list[Any] = []

    def other_relay() -> None:
        with transaction.atomic():
            theirs.extend(dispatch.mark("default", 20))
            locked.set()
            assert go.wait(20)

    with elsewhere(other_relay):
        assert locked.wait(20)
        ours = dispatch.mark("default", 50)
        go.set()
    assert (len(theirs), len(ours)) == (20, 30)
    assert not {m.id for m in theirs} & {m.id for m in ours}


def test_a_lost_child_gives_back_only_its_own_workers_lease() -> None:
    message_id = published()
    claim(message_id, lease_s=0, worker="w1")
    successor = claim(message_id, worker="w2")
    assert journal.lost(message_id, 1, worker="w1", error="WorkerLost") is False
    assert journal.settle(successor)


@pytest.mark.parametrize("ending", [{"lost": True}, {"lost": False}])
def test_a_child_that_dies_with_a_second_copy_takes_no_lease_of_a_sibling_in_the_same_worker(
    ending: dict[str, bool],
) -> None:
    from config.wiring import worker_failure
    from outbox import worker

    message_id = published()
    told = {"exception": None, "error": "WorkerLost", "traceback": "", **ending}
    worker._born()
    try:
        sibling = claim(message_id, worker=worker.identity(pid=101))
        for pid in (102, None):
            assert worker_failure(message_id=str(message_id), generation=1, pid=pid, **told) == "settled"
        assert journal.settle(sibling), "the sibling's run was taken from it"
        own = published()
        claim(own, worker=worker.identity(pid=102))
        assert worker_failure(message_id=str(own), generation=1, pid=102, **told) == (
            "rearmed" if ending["lost"] else "dead"
        )
    finally:
        worker._incarnation = None


def test_a_run_that_fails_after_another_has_taken_the_message_buries_nothing_and_reports_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    message_id = published(tasks.transactional_wrong.s("a"))
    bury, successors = journal.bury, []

    def taken_over_before(*args: Any, **kwargs: Any) -> bool:
        # The failed run's transaction is rolled back, and with it the lock that was its claim.
        successors.append(claim(message_id, worker="w2"))
        return bury(*args, **kwargs)

    monkeypatch.setattr(journal, "bury", taken_over_before)
    outcome = run_here(
        str(message_id),
        wire={"generation": 1, "publish": 1},
        task="tests.support.tasks.transactional_wrong",
        queue="default",
    )
    assert outcome == execution.SKIPPED
    assert row(message_id).status == "published"
    assert journal.settle(successors[0])


def test_a_cancelled_message_is_not_run_by_the_copy_in_the_broker() -> None:
    message_id = published()
    assert journal.cancel(message_id, reason="not wanted")
    assert run_here(str(message_id), wire={"generation": 1}, task=NOTE, queue="default") == execution.SKIPPED
    assert effects.names() == []


def test_what_runs_can_not_be_cancelled() -> None:
    message_id = published()
    claimed = claim(message_id)
    assert not journal.cancel(message_id, reason="too late")
    assert journal.settle(claimed)


def test_an_error_that_postgresql_cannot_store_as_it_is_is_a_retry_all_the_same() -> None:
    message_id = published()
    assert journal.retry(claim(message_id), delay_s=0, error="\x00 and \ud800")
    assert [error["error"] for error in row(message_id).errors] == ["\\0 and \\ud800"]


def test_a_copy_whose_row_is_gone_is_skipped_and_counted() -> None:
    message_id = published()
    OutboxMessage.objects.all().delete()
    for _ in range(2):
        with asked_for(tasks.note, id=str(message_id), delivery_info={}):
            assert execution.deliver(tasks.note, {"generation": 1}, ("a",), {}) == execution.SKIPPED
    assert effects.names() == []
    assert selectors.stats()["skipped"] == {"duplicate": 0, "leased": 0, "missing": 2, "poison": 0}
