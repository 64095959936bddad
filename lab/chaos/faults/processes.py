"""Faults of our own processes: killed, frozen, restarted, with a wrong clock."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

from lab.chaos import SLOT_S
from lab.chaos.faults.kinds import KINDS, Hit, kind
from lab.chaos.system import System, children, kill

#: Longer than OUTBOX_WORKER_TIMEOUT of the run (see lab.chaos.run): others take over what the frozen one holds.
FROZEN_S = (6.0, 12.0)
SKEWED_S = 20.0
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


def busy_worker(system: System, dice: random.Random) -> tuple[str, list[int]] | None:
    workers = system.programs("worker")
    for name in dice.sample(workers, len(workers)):
        busy = system.busy_children(name)
        if busy:
            return name, busy
    return None


@kind("kill -9 worker child", "worker", times=7, kills=True)
def kill_child(system: System, dice: random.Random) -> Hit | None:
    found = busy_worker(system, dice)
    if found is None:
        return None
    name, busy = found
    return Hit(int(kill(dice.choice(busy))), note=name)


@kind("kill -9 worker parent", "worker", times=2, kills=True)
def kill_parent(system: System, dice: random.Random) -> Hit | None:
    found = busy_worker(system, dice)
    if found is None:
        return None
    name, busy = found
    kill(system.pid(name))
    return Hit(len(busy), note=name)


@kind("kill -9 relay", "relay", times=2, kills=True)
def kill_relay(system: System, dice: random.Random) -> Hit | None:
    moving = system.moving_messages()
    relays = system.programs("relay")
    if not moving or not relays:
        return None
    name = dice.choice(relays)
    kill(system.pid(name))
    return Hit(moving, note=name)


@kind("kill -9 beat", "beat", kills=True)
def kill_beat(system: System, dice: random.Random) -> Hit | None:
    # Its work is a tick: it is struck so shortly before one that the tick falls into its absence.
    if not system.programs("beat") or SLOT_S - time.time() % SLOT_S > 0.5:
        return None
    return Hit(int(kill(system.pid("beat"))), note="a tick falls into its absence")


@kind("kill -9 web", "web", kills=True)
def kill_web(system: System, dice: random.Random) -> Hit | None:
    requests = system.clients.in_flight
    if not requests or not system.programs("web"):
        return None
    kill(system.pid("web"))
    return Hit(requests)


@kind("kill -9 web worker", "web", kills=True)
def kill_web_worker(system: System, dice: random.Random) -> Hit | None:
    requests = system.clients.in_flight
    workers = children(system.pid("web")) if system.programs("web") else []
    if not requests or not workers:
        return None
    kill(dice.choice(workers))
    return Hit(requests)


@kind("kill -9 sandbox", "sandbox", kills=True)
def kill_sandbox(system: System, dice: random.Random) -> Hit | None:
    running = system.running_messages()
    if not running or not system.programs("sandbox"):
        return None
    kill(system.pid("sandbox"))
    return Hit(running)


def _freeze(system: System, name: str, in_flight: int, seconds: float) -> Hit:
    frozen = [system.pid(name), *children(system.pid(name))]
    for pid in frozen:
        kill(pid, signal.SIGSTOP)

    def thaw() -> None:
        for pid in frozen:
            kill(pid, signal.SIGCONT)

    return Hit(in_flight, note=f"{name}, {seconds:.0f} s", lasts_s=seconds, places=(name,), heal=thaw)


@kind("freeze worker past its leases", "worker")
def freeze_worker(system: System, dice: random.Random) -> Hit | None:
    found = busy_worker(system, dice)
    # Somebody must be left to take over what the frozen one holds.
    if found is None or len(system.programs("worker")) < 2:
        return None
    name, busy = found
    return _freeze(system, name, len(busy), dice.uniform(*FROZEN_S))


@kind("freeze relay past the margin", "relay")
def freeze_relay(system: System, dice: random.Random) -> Hit | None:
    moving, relays = system.moving_messages(), system.programs("relay")
    if not moving or not relays:
        return None
    return _freeze(system, dice.choice(relays), moving, dice.uniform(*FROZEN_S))


@kind("freeze web", "web")
def freeze_web(system: System, dice: random.Random) -> Hit | None:
    requests = system.clients.in_flight
    if not requests or not system.programs("web"):
        return None
    return _freeze(system, "web", requests, dice.uniform(3.0, 8.0))


@kind("rolling restart of a worker", "worker", times=2)
def restart_worker(system: System, dice: random.Random) -> Hit | None:
    found = busy_worker(system, dice)
    if found is None:
        return None
    name, busy = found
    kill(system.pid(name), signal.SIGTERM)
    return Hit(len(busy), note=name)


@kind("SIGTERM to a worker and all its children", "worker", times=2)
def terminate_group(system: System, dice: random.Random) -> Hit | None:
    """What systemd does by default (KillMode=control-group)."""
    found = busy_worker(system, dice)
    if found is None:
        return None
    name, busy = found
    # Its group is its own: the fleet starts each program as the leader of one.
    for pid in [system.pid(name), *system.children(name)]:
        kill(pid, signal.SIGTERM)
    return Hit(len(busy), note=name)


def runs_of(system: System, name: str) -> int:
    """How many messages this worker has run; of a shop that keeps no account of it, how many it has in hand."""
    if not system.database.number("SELECT count(*) FROM pg_tables WHERE tablename = 'outbox_worker'"):
        return len(system.busy_children(name))
    return system.database.number(
        "SELECT count(*) FROM outbox_outboxmessage m JOIN outbox_worker w"
        " ON split_part(m.worker, ':', 1) = w.incarnation::text"
        " WHERE w.pid = %s",
        system.pid(name),
    )


def skew_clock(system: System, dice: random.Random) -> Hit | None:
    found = busy_worker(system, dice)
    if found is None or len(system.programs("worker")) < 2:
        return None
    name, _ = found
    offset = dice.choice(("+2h", "-2h", "+45s", "-45s"))
    system.fleet.set_variables(
        # Only the clock on the wall: what measures durations stays right, as on a machine with a wrong date.
        name,
        {"LD_PRELOAD": str(FAKETIME[0]), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"},
    )
    kill(system.pid(name), signal.SIGTERM)

    def restore() -> int:
        ran = runs_of(system, name)
        system.fleet.set_variables(
            name, {"LD_PRELOAD": None, "FAKETIME": None, "FAKETIME_DONT_FAKE_MONOTONIC": None}
        )
        kill(system.pid(name), signal.SIGTERM)
        return ran

    return Hit(0, note=f"{name}, {offset}", lasts_s=SKEWED_S, places=(name,), heal=restore)


if FAKETIME:
    kind("wrong clock of a worker", "worker")(skew_clock)

SKIPPED = (
    {} if "wrong clock of a worker" in KINDS else {"wrong clock of a worker": "libfaketime is not installed"}
)
