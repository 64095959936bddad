"""Faults of the outside world: each dial of the sandbox, turned up for some seconds on one of its services."""

from __future__ import annotations

import random

from lab.chaos.faults.kinds import Hit, Strike, kind
from lab.chaos.system import System
from lab.sandbox.faults import DIALS

#: Dial -> setting. Hanging and dripping longer than our clients' time-outs, but not in so many calls that every worker
#: does nothing but wait.
SETTINGS: dict[str, dict[str, float]] = {
    "error_rate": {"error_rate": 0.6},
    "latency_ms": {"latency_ms": 400.0},
    "hang_rate": {"hang_rate": 0.2, "hang_ms": 12_000.0},
    "rate_limit_rate": {"rate_limit_rate": 0.6, "retry_after": 1.0},
    "drop_reply_rate": {"drop_reply_rate": 0.5},
    "redirect_rate": {"redirect_rate": 0.5},
    "wrong_json_rate": {"wrong_json_rate": 0.5},
    "slow_drip_rate": {"slow_drip_rate": 0.2, "slow_drip_ms": 12_000.0},
    "cached_error_rate": {"cached_error_rate": 0.5},
    "duplicate_event_rate": {"duplicate_event_rate": 0.8},
}
LASTS_S = (5.0, 8.0)


def _strike(dial: str) -> Strike:
    def strike(system: System, dice: random.Random) -> Hit | None:
        services = [name for name, dials in DIALS.items() if dial in dials and name not in system.held]
        running = system.running_messages()
        if not services or not running or not system.programs("sandbox"):
            return None
        service = dice.choice(services)
        _turn(system, {**system.dials, service: SETTINGS[dial]})
        # Turning any dial starts the counts anew, so that what was counted before is kept here.
        before = system.bitten[service, dial]

        def met() -> bool:
            return bool(system.bitten[service, dial] - before or system.sandbox.bitten()[service].get(dial))

        def heal() -> int | None:
            _turn(system, {name: dials for name, dials in system.dials.items() if name != service})
            # Latency is no bite: it is met by every call.
            return running if dial == "latency_ms" else system.bitten[service, dial] - before

        return Hit(
            0,
            note=service,
            lasts_s=dice.uniform(*LASTS_S),
            places=(service,),
            heal=heal,
            met=None if dial == "latency_ms" else met,
        )

    return strike


def _turn(system: System, dials: dict[str, dict[str, float]]) -> None:
    system.count_bites()
    system.sandbox.set_faults(dials)
    system.dials = dials


for _dial in SETTINGS:
    kind(f"sandbox {_dial.removesuffix('_rate').removesuffix('_ms').replace('_', ' ')}", "sandbox")(
        _strike(_dial)
    )
