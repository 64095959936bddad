"""The queue tiers. Each has its own worker pool, so that a flood in one cannot starve another.

Priority is a tier, not a number inside a queue: Redis emulates priorities with strict order, where one
level runs only when the level above is empty.
"""

from enum import IntEnum

from kombu import Queue

#: Tier -> worker processes it gets by default: payments first, batch work last.
TIERS = {"critical": 4, "high": 2, "default": 2, "low": 1}
DEFAULT_QUEUE = "default"


class Priority(IntEnum):
    """The names that producers use for the tiers; a higher number is more urgent."""

    CRITICAL = 100
    HIGH = 50
    NORMAL = 10
    LOW = 1

    @property
    def queue(self) -> str:
        return {100: "critical", 50: "high", 10: "default", 1: "low"}[self.value]


def declare(broker_url: str) -> list[Queue]:
    """The queues as this broker needs them: on RabbitMQ replicated quorum queues, on Redis plain lists."""
    if broker_url.startswith(("amqp", "pyamqp")):
        return [Queue(name, queue_arguments={"x-queue-type": "quorum"}) for name in TIERS]
    return [Queue(name) for name in TIERS]
