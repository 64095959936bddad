"""What a relay and a worker cost while there is nothing to do."""

from __future__ import annotations

import time

from lab.bench.figures import Figure
from lab.bench.world import World

SETTLE_S = 5.0
SECONDS = 30.0


def run(world: World) -> list[Figure]:
    with world.relay() as relay, world.worker(concurrency=2) as worker:
        time.sleep(SETTLE_S)
        before, began = (relay.cpu_s(), worker.cpu_s()), time.monotonic()
        time.sleep(SECONDS)
        after, seconds = (relay.cpu_s(), worker.cpu_s()), time.monotonic() - began
    shares = [(b - a) / seconds * 100 for a, b in zip(before, after, strict=True)]
    return [
        Figure("idle relay, of one core", shares[0], "%"),
        Figure("idle worker (parent and 2 children), of one core", shares[1], "%"),
        Figure("… together", sum(shares), "%", most=2),
    ]
