"""What processes have used, by trees: a program with all that it started, and that ended since."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(roots: Mapping[str, int]) -> dict[str, float]:
    """Seconds of CPU of each root's tree so far, children that have ended included once their parent has collected them."""
    used: dict[int, float] = {}
    for pid, fields in _processes().items():
        # User and system time, and the same of children that were waited for.
        used[pid] = sum(int(field) for field in fields[11:15]) / _TICKS
    trees = _trees(roots)
    return {name: sum(used.get(pid, 0.0) for pid in trees[name]) for name in roots}


def pss_mb(roots: Mapping[str, int]) -> dict[str, float]:
    """Megabytes of each root's tree now, a shared page divided by those who share it."""
    return {name: sum(map(_pss_kb, pids)) / 1024 for name, pids in _trees(roots).items()}


def parent(pid: int) -> int:
    """The parent of a process. Raises RuntimeError if there is no such process on this machine."""
    try:
        return int(_processes()[pid][1])
    except KeyError:
        raise RuntimeError(
            "a server is on another machine: its CPU time can only be measured on this one"
        ) from None


def _trees(roots: Mapping[str, int]) -> dict[str, list[int]]:
    children: dict[int, list[int]] = defaultdict(list)
    for pid, fields in _processes().items():
        children[int(fields[1])].append(pid)
    trees = {}
    for name, root in roots.items():
        trees[name] = [root]
        for pid in trees[name]:
            trees[name] += children[pid]
    return trees


def _processes() -> dict[int, list[str]]:
    """The fields of each process behind its name, which stands in brackets and may hold anything: state, parent, ..."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            found[int(entry.parent.name)] = entry.read_text().rpartition(")")[2].split()
    return found


def _pss_kb(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0
