"""From the commit of a message to the start of its task, in a system that is idle."""

from __future__ import annotations

import random
import time

from django.db import transaction

from lab.bench import effects
from lab.bench.figures import Figure, percentile
from lab.bench.tasks import stamp
from lab.bench.world import World, wait_until

MESSAGES = 300


def run(world: World) -> list[Figure]:
    committed: dict[int, float] = {}
    with world.relay(), world.worker(concurrency=2):
        for number in range(-5, MESSAGES):
            # Idle again, and not in step with anybody's poll.
            time.sleep(random.uniform(0.05, 0.25))
            with transaction.atomic():
                stamp.delay(number)
                # Before the commit and not after it: its fsync is a part of the wait.
                committed[number] = time.time()
            wait_until(lambda: effects.count() == len(committed), "the task", every_s=0.002)
    waits = [
        (at - committed[number]) * 1000 for number, at in effects.read() if number >= 0 and at is not None
    ]
    turns = {"ms": [round(wait, 3) for wait in waits]}
    return [
        Figure("commit to task start at idle, p50", percentile(waits, 50), "ms", most=15, turns=turns),
        Figure("commit to task start at idle, p99", percentile(waits, 99), "ms", most=100),
    ]
