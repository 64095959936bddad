"""The relay on one core, against django-celery-outbox 0.4 and against itself without a broker."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from celery.app import app_or_default

from lab.bench import cpu
from lab.bench.figures import Figure, ratio, take_turns
from lab.bench.world import World, one_core, stage
from outbox.broker.envelope import Outgoing
from outbox.broker.publisher import Publisher
from outbox.broker.redis import RedisPublisher
from outbox.relay.loop import Relay

app = app_or_default()

BATCH = 500
ROWS = 5_000
REPETITIONS = 5


class Nowhere(Publisher):
    """Publishing replaced by nothing: what is left is the cost of marking, which no transport can undercut."""

    def publish(self, batch: Sequence[Outgoing]) -> dict[int, str]:
        return {}

    def depths(self, queues: Sequence[str]) -> dict[str, int]:
        return dict.fromkeys(queues, 0)


@dataclass(frozen=True)
class Pass:
    """What a relay did: messages a second, and the CPU microseconds of one, its database session's included."""

    rate: float
    cpu_us: float


def measure(world: World, publisher: Publisher, *, rows: int = ROWS) -> Pass:
    """A relay that finds `rows` messages."""
    world.empty()
    relay = Relay(app, publisher=publisher, batch=BATCH)
    stage(BATCH + rows)
    with one_core():
        relay.run_once()  # Connects.
        began, cpu_began = time.perf_counter(), cpu.with_session_us()
        while relay.run_once():
            pass
        done = Pass(rows / (time.perf_counter() - began), (cpu.with_session_us() - cpu_began) / rows)
    publisher.close()
    return done


def measure_peer(world: World) -> Pass:
    """The same of django-celery-outbox, in a process with its own settings."""
    world.empty()
    printed = world.peer(["-m", "lab.bench.peers.celery_outbox", str(ROWS), str(BATCH)])
    return Pass(**json.loads(printed.splitlines()[-1]))


def run(world: World) -> list[Figure]:
    turns = take_turns(
        REPETITIONS,
        {
            "redis": lambda: measure(world, RedisPublisher(app)),
            "nowhere": lambda: measure(world, Nowhere(app)),
            "django-celery-outbox": lambda: measure_peer(world),
        },
    )
    rates = {side: [each.rate for each in passes] for side, passes in turns.items()}
    costs = {side: [each.cpu_us for each in passes] for side, passes in turns.items()}
    peer = "django-celery-outbox"
    return [
        Figure(
            "relay on one core, batch 500, Redis", statistics.median(rates["redis"]), "msg/s", turns=rates
        ),
        Figure(f"… / {peer} 0.4", ratio(rates, "redis", peer), "x", least=10),
        Figure(
            "… / itself with publishing replaced by nothing",
            ratio(rates, "redis", "nowhere") * 100,
            "%",
            least=40,
        ),
        Figure(
            "CPU time of a message, with its session",
            statistics.median(costs["redis"]),
            "µs",
            turns=costs,
        ),
        Figure(f"… {peer} / it", ratio(costs, peer, "redis"), "x"),
        Figure("… of it what is left without publishing", ratio(costs, "nowhere", "redis") * 100, "%"),
    ]
