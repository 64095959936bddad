"""Runs scenarios into their crash points, and compares the books afterwards."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

from lab.crashpoints.boundaries import SIDES, Crossing, Point, Watch, cut, kill
from lab.crashpoints.floor import NeverQuiet, an_hour_passes
from lab.crashpoints.laws import violations
from lab.crashpoints.outcome import Outcome
from lab.crashpoints.scenario import Scenario, State
from lab.crashpoints.world import ChildReport, World

#: kill: SIGKILL. cut: the connection breaks and the client library raises. rival: another one does the same thing
#: at this very moment. frozen: the process stands still past all leases, everything is redelivered to others, and
#: then it wakes up.
STRIKES = ("kill", "cut", "rival", "frozen")
#: A rival that needs a lock of the struck process cannot end before that goes on; the others need less than this.
RIVAL_WAIT_S = {"rival": 0.5, "frozen": 3.0}


class Explorer:
    """Explores one scenario in one world."""

    def __init__(self, world: World, scenario: Scenario) -> None:
        self._world = world
        self._scenario = scenario

    def trace(self) -> list[Crossing]:
        """The boundaries of an undisturbed run, which must hold by itself. Raises AssertionError if not."""
        crossings, found = self.undisturbed()
        assert not found, f"{self._scenario.name} does not hold even undisturbed: {found}"
        return crossings

    def undisturbed(self) -> tuple[list[Crossing], list[str]]:
        """The boundaries of an undisturbed run, and what does not hold after it."""
        state = self._start()
        report = self._world.child(lambda: self._scenario.act(self._world, state))
        assert not report.error, f"{self._scenario.name}:\n{report.error}"
        return report.crossings, self._finish(state)

    def explore(self, strike: str, *, part: int = 0, parts: int = 1) -> Iterator[Outcome]:
        """Strike at every boundary, on both sides; of several parts only one's share."""
        crossings = self.trace()
        # Between the two sides of a boundary others can change nothing that they could not change at the next one.
        sides = SIDES if strike in ("kill", "cut") else SIDES[:1]
        points = [Point(crossing.number, side) for crossing in crossings for side in sides]
        for point in points[part::parts]:
            yield self.strike(strike, point, label=str(crossings[point.number]))

    def strike(self, strike: str, point: Point, second: Point | None = None, *, label: str = "") -> Outcome:
        """One point, and for `second` another crash in the first round of the recovery."""
        state = self._start()
        state["strike"] = strike
        report = self._act(state, strike, point)
        struck = self._was_struck(report, strike, point)
        if strike == "kill" and point.number % 2:
            # The broker dies with the process and has kept nothing: the journal must be enough.
            self._world.floor.forget_everything()
        if second is not None:
            struck = (
                self._world.child(lambda: self._recover(state), lambda: Watch(second, kill)).killed and struck
            )
        found = self._finish(state)
        return Outcome(self._scenario.name, strike, point, second, label, found, struck)

    def recovery(self, point: Point) -> list[Crossing]:
        """The boundaries of the first round of recovery after a kill at `point`."""
        state = self._start()
        self._act(state, "kill", point)
        if point.number % 2:
            self._world.floor.forget_everything()
        report = self._world.child(lambda: self._recover(state))
        assert not report.error, report.error
        return report.crossings

    def pairs(self, *, wanted: int, seed: int, part: int = 0, parts: int = 1) -> Iterator[Outcome]:
        """`wanted` pairs of a crash and a crash in its recovery, spread over all of them by `seed`."""
        crossings = self.trace()
        firsts = [Point(crossing.number, side) for crossing in crossings for side in SIDES]
        dice = random.Random(seed)
        shares = {
            first: wanted // len(firsts) + (number < wanted % len(firsts))
            for number, first in enumerate(firsts)
        }
        for first in firsts[part::parts]:
            seconds = [Point(crossing.number, side) for crossing in self.recovery(first) for side in SIDES]
            for second in dice.sample(seconds, min(shares[first], len(seconds))):
                yield self.strike("kill", first, second, label=str(crossings[first.number]))

    def _start(self) -> State:
        self._world.renew()
        return self._scenario.start(self._world)

    def _act(self, state: State, strike: str, point: Point) -> ChildReport:
        act = lambda: self._scenario.act(self._world, state)  # noqa: E731
        if strike in ("kill", "cut"):
            return self._world.child(act, lambda: Watch(point, kill if strike == "kill" else cut))
        others: list[tuple[int, int]] = []

        def body() -> None:
            try:
                act()
            finally:
                for pid, reader in others:
                    self._world.end_child(pid, reader)

        def meanwhile(crossing: Crossing) -> None:
            others.append(
                self._world.start_child(self._rival(state) if strike == "rival" else self._others(state))
            )
            _wait_for_exit(others[-1][0], RIVAL_WAIT_S[strike])

        return self._world.child(body, lambda: Watch(point, meanwhile))

    def _rival(self, state: State) -> Callable[[], None]:
        rival = self._scenario.rival or self._scenario.act
        return lambda: rival(self._world, state)

    def _others(self, state: State) -> Callable[[], None]:
        def everybody_else() -> None:
            for _ in range(3):
                an_hour_passes()
                self._recover(state)

        return everybody_else

    def _was_struck(self, report: ChildReport, strike: str, point: Point) -> bool:
        if strike == "kill":
            return report.killed
        # An error that is raised from a cut connection is the product's right; what counts is what is left behind.
        return len(report.crossings) > point.number

    def _recover(self, state: State) -> None:
        self._scenario.again(self._world, state)
        self._world.floor.round()

    def _finish(self, state: State) -> list[str]:
        """Whoever asked asks again, everything is redelivered until quiet, and the books are compared."""
        scenario, world = self._scenario, self._world
        scenario.again(world, state)
        try:
            world.floor.until_quiet()
        except NeverQuiet as stuck:
            return [f"nothing is stuck: {stuck}"]
        except Exception as error:
            return [f"redelivery ends in order: {type(error).__name__}: {error}"]
        found = violations(world, accepted=state.get("accepted", []), waived=frozenset(scenario.waived))
        if unproven := scenario.proves(world, state):
            found.append(f"{scenario.name}: {unproven}")
        return found


def _wait_for_exit(pid: int, timeout_s: float) -> None:
    """Wait until the child is a zombie, which its parent collects later, or the time is over."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with open(f"/proc/{pid}/stat") as stat:
            if stat.read().rpartition(")")[2].split()[0] == "Z":
                return
        time.sleep(0.002)
