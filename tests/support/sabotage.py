"""Kills a worker at a point that no signal from outside can hit; loaded where HOLDFAST_TEST_SABOTAGE is set."""

from __future__ import annotations

import os
import signal
from typing import Any

from kombu.transport import redis


def die_between_pop_and_unacked(after: int) -> None:
    """SIGKILL when the message number `after` + 1 was popped and is not yet in the unacked hash."""
    keep, seen = redis.QoS.append, 0

    def append(self: Any, message: Any, delivery_tag: Any) -> None:
        nonlocal seen
        seen += 1
        if seen > after:
            os.kill(os.getpid(), signal.SIGKILL)
        keep(self, message, delivery_tag)

    redis.QoS.append = append


if os.environ.get("HOLDFAST_TEST_SABOTAGE") == "pop":
    die_between_pop_and_unacked(after=3)
