"""What a kind of fault is, and the list of all of them.

A strike looks whether there is work in flight where it would hit, and strikes only then. It returns what it hit, or
None: "nothing there now, ask again in a moment". That is what makes a run that hits nothing visible.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from lab.chaos.system import System


@dataclass
class Hit:
    """`in_flight`: how much work was hit. A fault that lasts holds its `places`, and `heal` ends it.

    `heal` may return work that only shows while the fault lasts; it is added to `in_flight`. `met`: whether there was such
    work yet; a fault that has met none lasts longer.
    """

    in_flight: int
    note: str = ""
    lasts_s: float = 0.0
    places: tuple[str, ...] = ()
    heal: Callable[[], int | None] | None = None
    met: Callable[[], bool] | None = None


Strike = Callable[[System, random.Random], Hit | None]


@dataclass(frozen=True)
class Kind:
    """`times`: how often it comes in one round of the schedule. `kills`: it is a kill -9."""

    name: str
    role: str
    strike: Strike = field(repr=False)
    times: int = 1
    kills: bool = False
    brokers: tuple[str, ...] = ("redis", "rabbitmq")


KINDS: dict[str, Kind] = {}


def kind(
    name: str,
    role: str,
    *,
    times: int = 1,
    kills: bool = False,
    brokers: tuple[str, ...] = ("redis", "rabbitmq"),
) -> Callable[[Strike], Strike]:
    """Register a strike as a kind of fault."""

    def register(strike: Strike) -> Strike:
        KINDS[name] = Kind(name, role, strike, times, kills, brokers)
        return strike

    return register
