"""Looks at the running system twice a second, past the proxy, and keeps what it saw as evidence."""

from __future__ import annotations

import contextlib
import time

from lab.chaos.system import AWAY, System
from lab.invariants import Sample

EVERY_S = 0.5


class Watch:
    """`tick` is to be called often; a server that is away costs a sample, not the run."""

    def __init__(self, system: System, *, depth_limit: int, relays: int, batch: int, slots: int):
        self._system = system
        # What workers hold goes back to the queue when their connection breaks, on top of what the relay put there.
        self._allowed = depth_limit + relays * batch + slots
        self._next_at = 0.0
        self.samples: list[Sample] = []
        self.completed = 0
        self.open_orders = 0

    def tick(self, now_s: float) -> None:
        if time.monotonic() < self._next_at:
            return
        self._next_at = time.monotonic() + EVERY_S
        self._system.note_journal()
        units: dict[str, int] = {}
        depths: dict[str, int] = {}
        open_messages = self.samples[-1].open_messages if self.samples else 0
        with contextlib.suppress(*AWAY):
            depths = self._system.broker.depths()
        with contextlib.suppress(*AWAY):
            database = self._system.database
            units = dict(database.rows("SELECT sku, stock + reserved + shipped FROM orders_product"))
            open_messages = database.number(
                "SELECT count(*) FROM outbox_outboxmessage WHERE status IN ('scheduled', 'blocked', 'pending', 'published')"
            )
            [(self.completed, self.open_orders)] = database.rows(
                "SELECT count(*) FILTER (WHERE status = 'completed'),"
                " count(*) FILTER (WHERE status IN ('pending', 'processing')) FROM orders_order"
            )
        allowed = self._allowed + self._system.lately_added()
        self.samples.append(Sample(now_s, units, depths, allowed, open_messages))
