"""The relay on one core, against django-celery-outbox 0.4 and against itself without a broker."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from config.celery import app
from lab.bench.figures import Figure, ratio, take_turns
from lab.bench.peers import celery_outbox
from lab.bench.world import World, one_core, stage
from lab.stack.stack import ROOT
from outbox.relay import Relay
from outbox.transport import Publisher, RedisPublisher
from outbox.wire import Outgoing

BATCH = 500
ROWS = 10_000
REPETITIONS = 5


class Nowhere(Publisher):
    """Publishing replaced by nothing: what is left is the cost of marking, which no transport can undercut."""

    def publish(self, batch: Sequence[Outgoing]) -> dict[int, str]:
        return {}

    def depths(self, queues: Sequence[str]) -> dict[str, int]:
        return dict.fromkeys(queues, 0)


def pass_rate(world: World, publisher: Publisher, *, rows: int = ROWS) -> float:
    """Messages a second of a relay that finds `rows` of them."""
    world.empty()
    relay = Relay(app, publisher=publisher, batch=BATCH)
    stage(BATCH + rows)
    with one_core():
        relay.run_once()  # Connects.
        began = time.perf_counter()
        while relay.run_once():
            pass
        taken = time.perf_counter() - began
    publisher.close()
    return rows / taken


def peer_rate(world: World) -> float:
    """The same of django-celery-outbox, in a process with its own settings."""
    world.empty()
    done = subprocess.run(
        [sys.executable, "-m", celery_outbox.__name__, str(ROWS), str(BATCH)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return float(answer["rate"])


def run(world: World) -> list[Figure]:
    turns = take_turns(
        REPETITIONS,
        {
            "redis": lambda: pass_rate(world, RedisPublisher(app)),
            "nowhere": lambda: pass_rate(world, Nowhere(app)),
            "django-celery-outbox": lambda: peer_rate(world),
        },
    )
    rate = sorted(turns["redis"])[REPETITIONS // 2]
    return [
        Figure("relay on one core, batch 500, Redis", rate, "msg/s"),
        Figure("… / django-celery-outbox 0.4", ratio(turns, "redis", "django-celery-outbox"), "x", least=10, turns=turns),
        Figure("… / itself with publishing replaced by nothing", ratio(turns, "redis", "nowhere") * 100, "%", least=40),
    ]
