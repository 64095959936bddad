"""Kills at a share of the way through an act, which a rehearsal has measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from lab.faultpoints.boundaries import SIDES, Point, Watch, kill, watching
from lab.faultpoints.environment import Environment

#: Parts of an act: a kill at part 500 comes in its middle.
PARTS = 1_000
#: (part, side): where a kill strikes. What is drawn is the same whatever the run is like.
moments = st.tuples(st.integers(0, PARTS - 1), st.sampled_from(SIDES))
Moment = tuple[int, str]


class Strikes:
    """Runs acts in children that are killed on the way, and counts those that did not live to end it.

    How many I/Os an act has is known from a rehearsal: a number drawn from thin air would mostly lie behind its end.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._length: dict[str, int] = {}
        self.kills: Counter[str] = Counter()

    def rehearse(self, act: str, perform: Callable[[], object]) -> None:
        """Perform the act undisturbed; its longest rehearsal counts."""
        with watching(Watch()) as watch:
            perform()
        self._length[act] = max(self._length.get(act, 0), len(watch.crossings))

    def strike(self, act: str, moment: Moment, perform: Callable[[], object], *, kind: str = "") -> Any:
        """Perform the act in a child that is killed at the moment; returns what it did if it came to its end.

        It comes to its end where it is shorter than at its rehearsal. `kind`: what the kill is counted as, if not the act.
        """
        part, side = moment
        point = Point(part * self._length[act] // PARTS, side)
        said: list[Any] = []
        report = self._environment.child(
            lambda: said.append(perform()), lambda: Watch(point, kill), lambda: said[0] if said else None
        )
        assert not report.error, report.error
        self.kills[f"kills while {kind or act}"] += report.killed
        return report.said
