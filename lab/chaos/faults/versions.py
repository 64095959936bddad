"""Faults of a deployment: processes of two releases run side by side."""

from __future__ import annotations

import random
import signal

from lab.chaos.faults.kinds import Hit, kind
from lab.chaos.faults.processes import busy_worker, runs_of
from lab.chaos.system import System, kill

LASTS_S = 15.0


@kind("worker of the previous release", "worker")
def previous_release(system: System, dice: random.Random) -> Hit | None:
    """It lacks a task and an argument that the others know (see `lab.chaos.old_version`)."""
    found = busy_worker(system, dice)
    # Others must be there that know them, or this is no rolling deployment.
    if found is None or len(system.programs("worker")) < 2:
        return None
    name, _ = found
    _restart(system, name, old="1")

    def upgrade() -> int:
        ran = runs_of(system, name)
        _restart(system, name, old=None)
        return ran

    return Hit(0, note=name, lasts_s=LASTS_S, places=(name,), heal=upgrade)


def _restart(system: System, name: str, *, old: str | None) -> None:
    system.fleet.set_variables(name, {"CHAOS_OLD_VERSION": old})
    kill(system.pid(name), signal.SIGTERM)
