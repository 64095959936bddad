"""A broker whose answers the test chooses, and a relay on it."""

from __future__ import annotations

from collections.abc import Sequence

from celery import current_app

from outbox.broker.envelope import Outgoing
from outbox.broker.publisher import BrokerUnavailable, Publisher
from outbox.relay.loop import Relay


class Broker(Publisher):
    """A broker whose answers the test chooses; what really reaches a broker is tested in test_publisher."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []
        self.down = False
        self.tries = 0
        self.refuses = ""
        self.depth = 0
        self.unusable: dict[str, str] = {}

    def publish(self, batch: Sequence[Outgoing]) -> dict[int, str]:
        self.tries += 1
        if self.down:
            raise BrokerUnavailable("connection refused")
        self.sent.extend(batch)
        return {message.id: self.refuses for message in batch} if self.refuses else {}

    def depths(self, queues: Sequence[str]) -> dict[str, int]:
        return dict.fromkeys(queues, self.depth + len(self.sent))

    def close(self) -> None: ...


def relay(broker: Broker, batch: int = 500) -> Relay:
    return Relay(current_app._get_current_object(), publisher=broker, batch=batch)
