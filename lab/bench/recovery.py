"""From `kill -9` of a whole worker to the end of what it had in flight, done by another worker."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from lab.bench import effects
from lab.bench.figures import Figure, percentile
from lab.bench.tasks import RELEASED
from lab.bench.world import World, open_messages, stage, wait_until
from lab.stack.rabbitmq import RabbitMQ

REPETITIONS = 10
#: Two run and two more wait, fetched, in the killed worker.
IN_FLIGHT = 4


def run(world: World) -> list[Figure]:
    redis = [once(world, {}) for _ in range(REPETITIONS)]
    server = RabbitMQ(
        world.directory / "rabbitmq",
        password="bench",
        log=world.directory / "rabbitmq.log",
        env=dict(os.environ),
    )
    server.start(wipe=True)
    try:
        rabbitmq = [once(world, {"BROKER_URL": server.url}) for _ in range(REPETITIONS)]
    finally:
        server.stop()
    return [
        Figure("kill -9 of a worker to the end of its work, Redis, p99", percentile(redis, 99), "s", most=35,
               turns={"s": redis}),
        Figure("kill -9 of a worker to the end of its work, RabbitMQ, p99", percentile(rabbitmq, 99), "s", most=10,
               turns={"s": rabbitmq}),
    ]  # fmt: skip


def once(world: World, env: Mapping[str, str]) -> float:
    """Seconds until the work of the killed worker is done."""
    world.empty()
    with world.relay(env=env), world.worker(env=env) as doomed:
        stage(IN_FLIGHT, task="lab.bench.tasks.held")
        wait_until(lambda: effects.count() == 2, "both children at work")
        with world.worker(env=env):
            effects.write(RELEASED)
            began = time.monotonic()
            doomed.kill()
            wait_until(lambda: open_messages() == 0, "recovery", seconds=120)
            return time.monotonic() - began
