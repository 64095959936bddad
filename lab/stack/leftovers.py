"""Finding and ending what a run that was killed has left: only what provably belongs to the one stack that asks."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.stack.errors import StackError
from lab.stack.processes import OWNER
from lab.stack.state import is_held

logger = logging.getLogger(__name__)

# Where a server of a stack stands, seen from the stack's owner: its data is in the owner itself, or one folder below.
DATA = (("postgres", "data"), ("redis",), ("rabbitmq",))


@dataclass(frozen=True)
class Leftover:
    """A process, and what proves that it is ours."""

    pid: int
    cwd: Path
    reason: str
    is_server: bool


def leftovers(owner: Path | None = None, *, homes: Iterable[Path] = ()) -> list[Leftover]:
    """Processes that belong to the stack of ``owner`` or have their data in ``homes``; never this one or an ancestor.

    Proof is the ``OWNER`` variable in the process's environment, or that a server stands in the data of the stack
    (PostgreSQL and Redis overwrite their environment with the title that ``ps`` shows). Below ``owner`` there may be
    other stacks, such as var/chaos in var/: what somebody holds the lock of is theirs. Linux only: empty elsewhere.
    """
    proc = Path("/proc")
    if not proc.is_dir():
        return []
    spared = _ancestry()
    places = list(homes)
    found: list[Leftover] = []
    for entry in proc.iterdir():
        if entry.name.isdigit() and int(entry.name) not in spared:
            with contextlib.suppress(OSError):
                found += _judge(entry, owner, places)
    return found


def _judge(entry: Path, owner: Path | None, homes: list[Path]) -> Iterator[Leftover]:
    cwd = (entry / "cwd").resolve()
    # A developer's shell or editor may stand in var/ too: only the servers' own programs count by directory.
    name = (entry / "comm").read_text().strip()
    is_server = name.startswith(("postgres", "redis-server", "valkey-server", "beam"))
    reason = ""
    if is_server and any(cwd in (home, home / "data") for home in homes):
        reason = "a server in the data of this stack"
    elif owner is not None and f"{OWNER}={owner}".encode() in (entry / "environ").read_bytes().split(b"\0"):
        reason = f"it carries {OWNER}={owner}"
    elif owner is not None and is_server and _is_data_of(owner, cwd):
        reason = f"a server in the data below {owner}"
    if reason:
        yield Leftover(int(entry.name), cwd, reason, is_server)


def _is_data_of(owner: Path, cwd: Path) -> bool:
    if owner not in cwd.parents:
        return False
    parts = cwd.relative_to(owner).parts
    if parts not in DATA and parts[1:] not in DATA:
        return False
    between = [owner.joinpath(*parts[:size]) for size in range(1, len(parts) + 1)]
    return not any(is_held(directory / "lock") for directory in between)


def _ancestry() -> set[int]:
    pids, pid = set(), os.getpid()
    while pid > 1:
        pids.add(pid)
        try:
            # Field 4 is the parent; the command name before it may hold spaces and parentheses.
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
    return pids


def end_leftovers(owner: Path | None = None, *, homes: Iterable[Path] = (), patience: float = 10.0) -> int:
    """End what a killed run left, and wait until it is gone. Returns how many processes there were.

    The servers get a fast shutdown and SIGKILL after ``patience`` seconds; the rest is killed at once: its owner was
    killed too, and whatever it held is made for that.
    """
    places = list(homes)
    signalled: dict[int, int] = {}
    kill_at = time.monotonic() + patience
    while found := leftovers(owner, homes=places):
        now = time.monotonic()
        if now > kill_at + 10:
            raise StackError(f"processes of a previous run do not end: {sorted(each.pid for each in found)}")
        for each in found:
            signum = signal.SIGINT if each.is_server and now <= kill_at else signal.SIGKILL
            if signalled.get(each.pid) != signum:
                signalled[each.pid] = signum
                logger.warning(
                    "ending pid %d in %s with %s: %s", each.pid, each.cwd, signum.name, each.reason
                )
                with contextlib.suppress(OSError):
                    os.kill(each.pid, signum)
        time.sleep(0.02)
    return len(signalled)
