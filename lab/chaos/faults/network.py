"""Faults between the processes and their servers: connections cut, half-open, slow, and answers that get lost."""

from __future__ import annotations

import random
from collections.abc import Callable

from lab.chaos.faults.kinds import Hit, Strike, kind
from lab.chaos.proxy import FaultProxy, Route
from lab.chaos.system import System

Apply = Callable[[FaultProxy, Route, random.Random], None]


def _cut(proxy: FaultProxy, route: Route, dice: random.Random) -> None:
    proxy.cut(route)


def _refuse(proxy: FaultProxy, route: Route, dice: random.Random) -> None:
    route.refusing = True
    proxy.cut(route)


def _freeze(proxy: FaultProxy, route: Route, dice: random.Random) -> None:
    route.frozen = True


def _deafen(proxy: FaultProxy, route: Route, dice: random.Random) -> None:
    route.deaf = True


def _slow(proxy: FaultProxy, route: Route, dice: random.Random) -> None:
    route.delay_s = dice.uniform(0.02, 0.1)


#: What happens -> (how, for how many seconds). One role's route is struck, or all of the server's.
WAYS: dict[str, tuple[Apply, tuple[float, float]]] = {
    "connections cut": (_cut, (0.0, 0.0)),
    "connections refused": (_refuse, (2.0, 5.0)),
    "half-open: accepted, never answered": (_freeze, (4.0, 8.0)),
    "answers lost, then cut": (_deafen, (0.3, 1.0)),
    "slow": (_slow, (3.0, 6.0)),
}


def _in_flight(system: System, routes: list[Route]) -> int:
    """Requests that are under way on these routes; for a worker at the broker, messages.

    A worker that has nothing to do waits for the broker's answer too: that is how it waits for a message.
    """
    fetching = [route for route in routes if route.server == "broker" and route.role.startswith("worker")]
    asking = sum(route.awaiting for route in routes if route not in fetching)
    return asking + (system.in_broker() if fetching else 0)


def _strike(server: str, apply: Apply, seconds: tuple[float, float]) -> Strike:
    def strike(system: System, dice: random.Random) -> Hit | None:
        routes = system.free_routes(server)
        if not routes:
            return None
        chosen = routes if dice.random() < 0.4 else [dice.choice(routes)]
        in_flight = _in_flight(system, chosen)
        if not in_flight:
            return None
        for route in chosen:
            apply(system.proxy, route, dice)

        def heal() -> None:
            for route in chosen:
                system.proxy.heal(route)

        who = "all" if len(chosen) > 1 else chosen[0].role
        return Hit(in_flight, note=who, lasts_s=dice.uniform(*seconds), heal=heal)

    return strike


for _server in ("postgres", "broker"):
    for _way, (_apply, _seconds) in WAYS.items():
        kind(f"{_server} {_way}", f"network to {_server}")(_strike(_server, _apply, _seconds))
