"""RabbitMQ: a relay that awaits its publisher confirms once a batch, against one that awaits each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from config.queues import declare, transport_options
from lab.bench.figures import Figure, ratio, take_turns
from lab.bench.relay import app, measure
from lab.bench.world import World
from lab.stack.rabbitmq import RabbitMQ
from outbox.broker.envelope import Outgoing
from outbox.broker.rabbitmq import AmqpPublisher

ROWS = 1_500
REPETITIONS = 5


class OneByOne(AmqpPublisher):
    """What a loop over `publish` does: a batch of one, confirmed, and the next."""

    def _send(self, channel: Any, batch: Sequence[Outgoing]) -> dict[int, str]:
        refused: dict[int, str] = {}
        for message in batch:
            refused |= super()._send(channel, [message])
        return refused


def run(world: World) -> list[Figure]:
    server = RabbitMQ(
        world.directory / "rabbitmq",
        password="bench",
        log=world.directory / "rabbitmq.log",
        env=dict(os.environ),
    )
    server.start(wipe=True)
    try:
        use(server.url)
        turns = take_turns(
            REPETITIONS,
            {
                "batched": lambda: measure(world, AmqpPublisher(app), rows=ROWS).rate,
                "one by one": lambda: measure(world, OneByOne(app), rows=ROWS).rate,
            },
        )
    finally:
        server.stop()
        use(os.environ["BROKER_URL"])
    return [
        Figure("relay on one core, batch 500, RabbitMQ quorum queue, confirms once a batch",
               sorted(turns["batched"])[REPETITIONS // 2], "msg/s"),
        Figure("… / confirms one by one", ratio(turns, "batched", "one by one"), "x", least=5, turns=turns),
    ]  # fmt: skip


def use(url: str) -> None:
    """The broker of this process from now on."""
    app.conf.update(
        broker_url=url,
        task_queues=declare(url),
        broker_transport_options=transport_options(url, visibility_timeout_s=900),
    )
    app.__dict__.pop("amqp", None)
