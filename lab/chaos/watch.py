"""Looks at the running system twice a second, past the proxy, and keeps what it saw as evidence."""

from __future__ import annotations

import contextlib
import time

from lab.chaos.subject import Subject
from lab.chaos.system import SERVER_DOWN, System
from lab.invariants import Sample

EVERY_S = 0.5


class Watch:
    """`tick` is to be called often; a server that is down costs a sample, not the run."""

    def __init__(self, system: System, tested: Subject):
        self._system = system
        self._tested = tested
        self._next_at = 0.0
        self.samples: list[Sample] = []
        self.completed = 0
        self.open_orders = 0
        #: Whether the last look saw the database.
        self.sees = False

    def tick(self, now_s: float) -> None:
        if time.monotonic() < self._next_at:
            return
        self._next_at = time.monotonic() + EVERY_S
        self._system.note_journal()
        units: dict[str, int] = {}
        depths: dict[str, int] = {}
        open_messages = self.samples[-1].open_messages if self.samples else 0
        self.sees = False
        with contextlib.suppress(*SERVER_DOWN):
            depths = self._system.broker.depths()
        with contextlib.suppress(*SERVER_DOWN):
            if self._tested.units:
                units = dict(self._system.database.rows(self._tested.units))
            [(self.completed, self.open_orders, open_messages)] = self._system.database.rows(
                self._tested.figures
            )
            self.sees = True
        allowed = self._tested.depth_allowed + self._system.lately_added()
        self.samples.append(Sample(now_s, units, depths, allowed, open_messages))
