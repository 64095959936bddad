"""Carries out the schedule: strikes when there is something to hit, ends what lasts, writes down what was hit."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from lab.chaos.faults import Hit, Kind
from lab.chaos.schedule import Planned
from lab.chaos.system import SERVER_DOWN, System

#: A fault that finds nothing to hit asks again for this long; it is then counted as one that hit nothing.
PATIENCE_S = 15.0
#: How often a fault that goes on because it has met nothing is asked whether it has.
ASK_EVERY_S = 0.5


@dataclass
class Struck:
    """One fault that was carried out, for the report."""

    at_s: float
    kind: Kind
    hit: Hit
    until_s: float
    healed: bool

    @property
    def in_flight(self) -> int:
        return self.hit.in_flight


class Director:
    """`tick` is to be called many times a second; it never waits."""

    def __init__(self, system: System, plan: Sequence[Planned]):
        self._system = system
        self.plan = tuple(plan)
        self._coming = list(plan)
        self._waiting: list[tuple[Planned, random.Random]] = []
        self.struck: list[Struck] = []
        self.missed: list[Planned] = []

    @property
    def active(self) -> list[Struck]:
        return [struck for struck in self.struck if not struck.healed]

    def tick(self, now_s: float) -> None:
        """Bring the faults up to this moment, in seconds after the start."""
        self._system.keep_dials()
        for struck in self.active:
            if now_s >= struck.until_s and not self._goes_on(struck, now_s):
                self._heal(struck)
        while self._coming and self._coming[0].at_s <= now_s:
            planned = self._coming.pop(0)
            self._waiting.append((planned, random.Random(planned.seed)))
        for entry in list(self._waiting):
            if self._strike(*entry, now_s):
                self._waiting.remove(entry)
            elif now_s > entry[0].at_s + PATIENCE_S:
                self._waiting.remove(entry)
                self.missed.append(entry[0])

    def heal_all(self) -> bool:
        """End whatever lasts and strike no more; False when something could not be ended yet: call again."""
        self.missed += [planned for planned, _ in self._waiting]
        self._coming, self._waiting = [], []
        for struck in self.active:
            self._heal(struck)
        return not self.active

    def _strike(self, planned: Planned, dice: random.Random, now_s: float) -> bool:
        try:
            hit = planned.kind.strike(self._system, dice)
        except SERVER_DOWN:
            return False  # another fault has taken away what this one needs to see; it asks again
        if hit is None:
            return False
        self._system.held.update(hit.places)
        self.struck.append(Struck(now_s, planned.kind, hit, now_s + hit.lasts_s, healed=hit.heal is None))
        return True

    @staticmethod
    def _goes_on(struck: Struck, now_s: float) -> bool:
        """Of a fault whose time is over and that has met nothing yet; for as long as one that finds nothing waits."""
        if struck.hit.met is None or now_s >= struck.at_s + struck.hit.lasts_s + PATIENCE_S:
            return False
        struck.until_s = now_s + ASK_EVERY_S
        try:
            return not struck.hit.met()
        except SERVER_DOWN:
            return True

    def _heal(self, struck: Struck) -> None:
        assert struck.hit.heal is not None
        try:
            struck.hit.in_flight += struck.hit.heal() or 0
        except SERVER_DOWN:
            return  # for example the sandbox, whose dial shall be turned down, is being restarted
        struck.healed = True
        self._system.held.difference_update(struck.hit.places)
