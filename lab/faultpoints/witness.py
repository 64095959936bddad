"""Tasks without any guard of their own, so that what the outbox promises is seen and not what the domain repairs.

Each run writes a row. Registered in explorers only.
"""

from __future__ import annotations

from typing import Any

from celery import Task, shared_task

import outbox
from lab.faultpoints.environment import Environment, model
from lab.faultpoints.runs import record, rows
from lab.faultpoints.scenario import Scenario, State, message


def _write(task: Task, name: str) -> None:
    run = outbox.current()
    assert run is not None
    record(name, generation=task.request.outbox["generation"], message_id=run.message_id)


@shared_task(bind=True, transactional=True)
def once(self: Task) -> None:
    """Exactly once: the effect commits with the settlement."""
    _write(self, "once")


@shared_task(bind=True)
def runs(self: Task) -> None:
    """At least once, and never two runs at a time."""
    _write(self, "runs")


@shared_task(bind=True)
def parent(self: Task) -> None:
    """Its children exist if and only if it is settled."""
    once.delay()
    _write(self, "parent")
    once.delay()


@shared_task(bind=True, autoretry_for=(ConnectionError,), max_retries=3)
def flaky(self: Task) -> None:
    """Fails in its first generation: a late copy of that one must not run again."""
    _write(self, "flaky")
    if self.request.retries == 0:
        raise ConnectionError("the other side is down")


@shared_task(bind=True)
def deferred(self: Task) -> None:
    """Not now, at first: that is no attempt."""
    _write(self, "deferred")
    if self.request.outbox["generation"] == 1:
        raise outbox.Defer(1, "not now")


@shared_task(bind=True)
def wrong(self: Task) -> None:
    """Wrong for good: one dead letter."""
    _write(self, "wrong")
    raise ValueError("no retry can mend this")


def _witness(
    task: Task, *, at_most: int, effects: int | None = None, waived: dict[str, str] | None = None
) -> Scenario:
    """`at_most`: undisturbed runs. A crash in a run, or a lease that ran out under one, makes one more."""
    name = task.name.rpartition(".")[2]

    def stage(environment: Environment) -> Any:
        return outbox.enqueue(task.s())

    def proves(environment: Environment, state: State) -> str:
        seen = rows(name)
        row = model("outbox.OutboxMessage").objects.get(task=task.name)
        allowed = at_most + (
            state.get("strike") in ("kill", "cut", "refused", "frozen") and not task.transactional
        )
        if not 1 <= len(seen) <= allowed:
            return f"{len(seen)} runs, {allowed} allowed {row.errors}"
        # A run that stood still past its lease, and then writes, does so beside the next generation: only a transaction
        # could keep it from that.
        zombies = state.get("strike") == "frozen" and not task.transactional
        stale = [pair for pair in seen if pair[0] != pair[1]]
        if len(stale) > zombies:
            return f"a copy of generation {stale[0][0]} ran in generation {stale[0][1]}"
        if effects is not None and len(rows("once")) != effects:
            return f"{len(rows('once'))} effects of its children, not {effects}"
        if name == "deferred" and row.attempts != 1:
            return f"{row.attempts} attempts, though a deferral is none"
        return ""

    return message(f"witness_{name}", task.name, stage, proves=proves, waived=waived)


WITNESSES: tuple[Scenario, ...] = (
    _witness(once, at_most=1),
    _witness(runs, at_most=1),
    _witness(
        parent, at_most=1, effects=2, waived={"nothing is enqueued twice": "its two children are alike"}
    ),
    _witness(flaky, at_most=2),
    _witness(deferred, at_most=2),
    _witness(wrong, at_most=1, waived={"no dead letter": "it is wrong for good"}),
)
