"""Offering a message again, for whatever reason, against whatever happens to it at the same time."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import transaction

import outbox
from outbox import claims, delivery, groups, transitions
from outbox.models import OutboxMessage
from outbox.relay import queries
from outbox.testing import drain, run_here, staged
from tests.support import effects, tasks
from tests.support.messages import claim, elsewhere, published, row

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clean")]


NOTE = "tests.support.tasks.note"


@pytest.mark.promise("P2", "a relay is killed between mark and publish", "the rescuer requeues the rows")
def test_a_relay_killed_between_mark_and_publish_loses_nothing() -> None:
    """The message is only delayed."""
    message_id = published()

    assert queries.requeue_unstarted("default", seen_empty=True, margin_s=60) == 0, "too early to judge"
    assert queries.requeue_unstarted("default", seen_empty=True, margin_s=0) == 1

    drain()

    assert effects.names() == ["a"]
    assert row(message_id).status == "done"


@pytest.mark.promise(
    "P2", "the broker fails while the relay publishes", "what no worker has begun is pending again"
)
def test_a_revert_leaves_alone_what_a_worker_has_begun() -> None:
    message_id = outbox.enqueue(tasks.note.s("a"))
    batch = queries.mark("default", 10)
    claimed = claim(message_id)

    assert queries.revert(batch) == 0
    assert transitions.settle(claimed)


def test_a_copy_that_runs_after_the_revert_is_not_republished() -> None:
    """It had reached the broker before the revert."""
    message_id = outbox.enqueue(tasks.note.s("a"))
    batch = queries.mark("default", 10)
    assert queries.revert(batch) == 1
    claimed = claim(message_id)
    assert isinstance(claimed, claims.Claimed)
    assert queries.mark("default", 10) == [], "a relay took what is running"
    assert transitions.settle(claimed)


def test_a_rescue_does_not_requeue_a_message_settled_meanwhile() -> None:
    """The rescue had judged it lost."""
    message_id = published()
    assert transitions.settle(claim(message_id))
    assert queries.requeue_unstarted("default", seen_empty=True, margin_s=0) == 0
    assert queries.requeue_abandoned(worker_timeout_s=0, judge_workers=True) == 0


def test_a_replay_does_not_race_the_original_in_the_broker() -> None:
    message_id = published(tasks.ordered.s("a", fail=True))
    wire = {"generation": 1, "publish": 1}
    run_here(str(message_id), wire=wire, task="tests.support.tasks.ordered", queue="default")
    assert row(message_id).status == "dead"
    assert transitions.replay(message_id)
    assert not transitions.replay(message_id), "two operators replayed one message"
    run_here(str(message_id), wire=wire, task="tests.support.tasks.ordered", queue="default")
    assert effects.names() == ["a"], "the original's second copy ran beside the replay"


def test_a_dead_workers_message_is_requeued_only_once_its_heartbeat_is_missing() -> None:
    from outbox import heartbeat

    message_id = published()
    heartbeat._born()
    try:
        heartbeat.write_heartbeat(concurrency=1, active=1)
        claim(message_id, worker=heartbeat.identity())
        assert queries.requeue_abandoned(worker_timeout_s=30, judge_workers=True) == 0
        assert queries.requeue_abandoned(worker_timeout_s=0, judge_workers=False) == 0
        assert queries.requeue_abandoned(worker_timeout_s=0, judge_workers=True) == 1
    finally:
        heartbeat._incarnation = None
    assert row(message_id).status == "pending"


def test_an_overtaken_message_counts_as_lost_and_a_waiting_one_does_not() -> None:
    from outbox import heartbeat

    lost, waiting = published(), published(tasks.note.s("b"))
    OutboxMessage.objects.filter(message_id=lost).update(published_at="2026-01-01T00:00:00Z")
    heartbeat._born()
    try:
        heartbeat._received["default"] = row(waiting).published_at.timestamp()
        heartbeat.write_heartbeat(concurrency=1, active=1)
    finally:
        heartbeat._incarnation = None
        heartbeat._received.clear()
    assert queries.requeue_unstarted("default", seen_empty=False, margin_s=0.0) == 1
    assert (row(lost).status, row(waiting).status) == ("pending", "published")


@pytest.mark.promise(
    "P7",
    "two transactions overlap, and the second one commits first",
    "their messages run one at a time, the one of the second transaction first",
)
def test_two_heads_committed_out_of_order_run_in_commit_order() -> None:
    """One at a time."""
    inserted, commit = threading.Event(), threading.Event()

    def early_but_slow() -> None:
        with transaction.atomic():
            outbox.enqueue(tasks.ordered.s("first-inserted"), ordering_key="g")
            inserted.set()
            assert commit.wait(20)

    with elsewhere(early_but_slow):
        assert inserted.wait(20)
        outbox.enqueue(tasks.ordered.s("first-committed"), ordering_key="g")
        assert groups.promote_heads() == 1
        commit.set()
    assert groups.promote_heads() == 0, "a second head beside the first"
    assert [m.status for m in staged()] == ["blocked", "pending"]
    drain()
    assert effects.names() == ["first-committed", "first-inserted"]


def test_two_relays_mark_each_message_for_one_of_them() -> None:
    outbox.enqueue_many([tasks.note.s(f"{n}") for n in range(50)])
    locked, go = threading.Event(), threading.Event()
    theirs: list[Any] = []

    def other_relay() -> None:
        with transaction.atomic():
            theirs.extend(queries.mark("default", 20))
            locked.set()
            assert go.wait(20)

    with elsewhere(other_relay):
        assert locked.wait(20)
        ours = queries.mark("default", 50)
        go.set()
    assert (len(theirs), len(ours)) == (20, 30)
    assert not {m.id for m in theirs} & {m.id for m in ours}


def test_a_cancelled_message_is_not_run_by_the_copy_in_the_broker() -> None:
    message_id = published()
    assert transitions.cancel(message_id, reason="not wanted")
    assert run_here(str(message_id), wire={"generation": 1}, task=NOTE, queue="default") == delivery.SKIPPED
    assert effects.names() == []


def test_a_message_that_runs_in_a_transaction_cannot_be_cancelled() -> None:
    """Nor does the cancelling wait for it."""
    message_id = published(tasks.note_once.s("a"))
    held, done = threading.Event(), threading.Event()

    def running() -> None:
        with transaction.atomic():
            claimed = claims.lock(message_id, 1, frozen_s=60, max_deliveries=5)
            held.set()
            assert done.wait(20)
            assert isinstance(claimed, claims.Claimed)
            assert transitions.settle(claimed)

    with elsewhere(running):
        assert held.wait(20)
        assert not transitions.cancel(message_id, reason="too late")
        assert not done.is_set()
        done.set()
    assert row(message_id).status == "done"


def test_what_runs_can_not_be_cancelled() -> None:
    message_id = published()
    claimed = claim(message_id)
    assert not transitions.cancel(message_id, reason="too late")
    assert transitions.settle(claimed)
