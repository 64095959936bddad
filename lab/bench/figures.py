"""Figures: what a benchmark returns, how they are compared, printed and kept."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Figure:
    """One line of the table. `least` or `most` is the goal; without either the figure is only shown."""

    name: str
    value: float
    unit: str
    least: float | None = None
    most: float | None = None
    #: What the value was computed from: every turn of every side.
    turns: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        return (self.least is None or self.value >= self.least) and (
            self.most is None or self.value <= self.most
        )

    @property
    def goal(self) -> str:
        if self.least is None and self.most is None:
            return ""
        return f">= {self.least:g}" if self.least is not None else f"<= {self.most:g}"

    def line(self) -> str:
        verdict = "" if not self.goal else ("met" if self.met else "MISSED")
        return f"{self.name:<72} {self.value:>9.4g} {self.unit:<6} {self.goal:<8} {verdict}"


def take_turns(repetitions: int, sides: dict[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Run every side once a turn; the order rotates, so that none always follows the same other."""
    turns: dict[str, list[T]] = {name: [] for name in sides}
    names = list(sides)
    for turn in range(repetitions):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            turns[name].append(sides[name]())
    return turns


def ratio(turns: dict[str, list[float]], side: str, other: str) -> float:
    """The median over the turns of side / other. Of two rates that is how many times faster `side` is."""
    return statistics.median(a / b for a, b in zip(turns[side], turns[other], strict=True))


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100).__int__() - 1)]


def fsync_ms(directory: Path, times: int = 50) -> float:
    """The median time of writing 8 kB and forcing them to the disk that holds `directory`."""
    path = directory / "fsync-probe"
    taken = []
    with open(path, "wb", buffering=0) as file:
        for _ in range(times):
            began = time.perf_counter()
            file.write(b"\0" * 8192)
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    path.unlink()
    return statistics.median(taken) * 1000


def keep(directory: Path, name: str, figures: Sequence[Figure], machine: dict[str, Any]) -> Path:
    """Write the figures of one benchmark, with all their turns, to `directory`."""
    path = directory / f"{name}.json"
    lines = [{**asdict(figure), "met": figure.met} for figure in figures]
    path.write_text(json.dumps({"machine": machine, "figures": lines}, indent=1) + "\n")
    return path
