"""The proof that a worker works in all of its processes; a count of effects would be met by one of them alone."""

from __future__ import annotations

import uuid

from tests.support import effects, rawpublish
from tests.support.processes import Process, await_


def assert_every_process_works(process: Process, concurrency: int = 2, *, queue: str = "default") -> None:
    """As many messages as the pool has processes run at the same time, each in another one of them."""
    name = f"meeting-{uuid.uuid4()}"
    for _ in range(concurrency):
        rawpublish.send("tests.support.tasks.meet", name, concurrency, _queue=queue)
    await_(lambda: len(effects.names(f"{name}-")) == concurrency, f"{concurrency} processes work at a time")
    pids = {int(effect.rpartition("-")[2]) for effect in effects.names(f"{name}-")}
    assert len(pids) == concurrency
    assert pids <= set(process.children())
    assert process.alive()
