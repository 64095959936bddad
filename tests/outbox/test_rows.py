"""A child whose id is taken: refused at the call, since its parent's settlement would find it out after the effect."""

from __future__ import annotations

import uuid

import pytest

import outbox
from outbox.models import OutboxMessage
from outbox.testing import drain, run_here
from tests.support import effects, settling_tasks, tasks
from tests.support.messages import published, row

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clean")]

WAYS = ["two calls", "one call", "atomic", "atomic at last"]


@pytest.mark.parametrize("way", WAYS)
def test_a_child_enqueued_twice_with_one_id_is_refused(way: str) -> None:
    """At the call."""
    parent = outbox.enqueue(settling_tasks.parent_of_twins.s("a", way, str(uuid.uuid4()), ["", ""]))
    drain()
    assert effects.names()[0] == "a"
    (error,) = row(parent).errors
    assert error["error"].startswith("EnqueueError: tests.support.tasks.note: there is a message")


@pytest.mark.parametrize("way", WAYS[:3])
def test_a_child_enqueued_twice_with_one_dedup_key_is_one(way: str) -> None:
    """As it is outside of a run."""
    twin = tasks.note.s("outside").set(task_id=str(uuid.uuid4()), dedup_key="k")
    assert outbox.enqueue(twin) == outbox.enqueue(twin)
    drain()
    parent = outbox.enqueue(settling_tasks.parent_of_twins.s("a", way, str(uuid.uuid4()), ["k", "k"]))
    drain()
    assert row(parent).status == "done"
    assert effects.names() == ["outside", "a", "a-child"]


def test_a_committed_child_is_not_dropped_for_a_buffered_one() -> None:
    """A buffered one waits for the settlement. That may never come, and the transaction has committed."""
    parent = outbox.enqueue(
        settling_tasks.parent_of_twins.s("a", "atomic at last", str(uuid.uuid4()), ["k", "k"])
    )
    drain()
    assert row(parent).errors[0]["error"].startswith("EnqueueError")


@pytest.mark.parametrize("keys", [["k"], ["other"]])
def test_an_existing_child_is_left_out_by_dedup_key_only(keys: list[str]) -> None:
    child = outbox.enqueue(tasks.note.s("child"), dedup_key="k", delay=60)
    parent = published(settling_tasks.parent_of_twins.s("a", "two calls", str(child), keys))
    run_here(
        str(parent),
        wire={"generation": 1},
        task="tests.support.settling_tasks.parent_of_twins",
        queue="default",
    )
    assert row(parent).status == ("done" if keys == ["k"] else "dead")
    assert OutboxMessage.objects.count() == 2
