"""Which fault comes when: drawn from the seed alone, before the run."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from lab.chaos.faults import Kind

#: Faults a minute: ten minutes are 365 faults, about 120 of them kill -9: six rounds of all kinds that the broker has (59
#: faults on Redis, 60 on RabbitMQ). More a minute would hit processes that are still starting: more rounds take more minutes.
PER_MINUTE = 36.5
#: The system shall have work in flight before the first fault, and come to an end after the last.
CALM_S = 3.0


@dataclass(frozen=True)
class Planned:
    """One fault to come, at seconds after the start, with a seed for what it leaves open."""

    at_s: float
    kind: Kind
    seed: str


def draw(kinds: Sequence[Kind], *, seconds: float, seed: int) -> list[Planned]:
    """The whole schedule. Every kind comes once (`times` times) before any comes again."""
    dice = random.Random(f"{seed}/schedule")
    count = max(1, round(seconds / 60 * PER_MINUTE))
    drawn: list[Kind] = []
    while len(drawn) < count:
        one_round = [kind for kind in kinds for _ in range(kind.times)]
        dice.shuffle(one_round)
        drawn += one_round
    moments = sorted(dice.uniform(CALM_S, max(CALM_S, seconds - CALM_S)) for _ in range(count))
    return [
        Planned(at_s, kind, f"{seed}/{number}")
        for number, (at_s, kind) in enumerate(zip(moments, drawn[:count], strict=True))
    ]
