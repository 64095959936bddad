"""Runs scenarios into their crash points, and compares the ledgers afterwards."""

from __future__ import annotations

import os
import random
import select
import time
from collections.abc import Callable, Iterator, Sequence

from django.db import connection

from lab.faultpoints.boundaries import KINDS, SIDES, Crossing, Point, Watch, cut, kill, refused
from lab.faultpoints.environment import ChildReport, Environment
from lab.faultpoints.in_process import NeverQuiet
from lab.faultpoints.invariants import violations
from lab.faultpoints.outcome import Outcome
from lab.faultpoints.scenario import Scenario, State

#: Those that strike in the process itself, by raising or by ending it.
_OWN = {"kill": kill, "cut": cut, "refused": refused}
#: Longest that the struck process stands still for those who neither end nor wait for one of its locks.
STILL_S = 3.0
#: How often it is looked whether they wait for a lock.
LOOK_EVERY_S = 0.1
#: Rounds of the others while a process is frozen: in the second they run what came of the first, a retry for one.
ROUNDS_OF_OTHERS = 2


class Explorer:
    """Explores one scenario in one environment."""

    def __init__(self, environment: Environment, scenario: Scenario) -> None:
        self._environment = environment
        self._scenario = scenario

    def trace(self) -> list[Crossing]:
        """The boundaries of an undisturbed run, which must hold by itself. Raises AssertionError if not."""
        crossings, found = self.undisturbed()
        assert not found, f"{self._scenario.name} does not hold even undisturbed: {found}"
        return crossings

    def undisturbed(self) -> tuple[list[Crossing], list[str]]:
        """The boundaries of an undisturbed run, and what does not hold after it."""
        state = self._start()
        report = self._environment.child(lambda: self._scenario.act(self._environment, state))
        assert not report.error, f"{self._scenario.name}:\n{report.error}"
        return report.crossings, self._finish(state)

    def explore(
        self, strike: str, crossings: Sequence[Crossing], *, part: int = 0, parts: int = 1
    ) -> Iterator[Outcome]:
        """Strike at every one of the boundaries, on both sides; of several parts only one's share."""
        # Between the two sides of a boundary others can change nothing that they could not change at the next one.
        sides = SIDES if strike in ("kill", "cut") else SIDES[:1]
        where = ("sql", "commit") if strike == "refused" else KINDS
        points = [
            Point(crossing.number, side) for crossing in crossings if crossing.kind in where for side in sides
        ]
        for point in points[part::parts]:
            outcome = self.strike(strike, point, label=str(crossings[point.number]))
            if not outcome.struck and not outcome.violations:
                outcome = self.strike(strike, point, label=str(crossings[point.number]))
            yield outcome

    def strike(self, strike: str, point: Point, second: Point | None = None, *, label: str = "") -> Outcome:
        """One point, and for `second` another crash in the first round of the recovery."""
        state = self._start()
        state["strike"] = strike if second is None else "pair"
        report = self._act(state, strike, point)
        struck = self._was_struck(report, strike, point)
        found = self._unexpected(report, strike)
        self._note_accepted(state, report)
        if strike == "kill" and point.number % 2:
            # The broker dies with the process and has kept nothing: the journal must be enough.
            self._environment.processes.forget_everything()
        if second is not None:
            struck = (
                self._environment.child(lambda: self._recover(state), lambda: Watch(second, kill)).killed
                and struck
            )
        found += self._finish(state)
        return Outcome(self._scenario.name, strike, point, second, label, found, struck)

    def recovery(self, point: Point) -> list[Crossing]:
        """The boundaries of the first round of recovery after a kill at `point`."""
        state = self._start()
        self._act(state, "kill", point)
        if point.number % 2:
            self._environment.processes.forget_everything()
        report = self._environment.child(lambda: self._recover(state))
        assert not report.error, report.error
        return report.crossings

    def pairs(
        self, crossings: Sequence[Crossing], *, wanted: int, seed: int, part: int = 0, parts: int = 1
    ) -> Iterator[Outcome]:
        """`wanted` pairs of a crash and a crash in its recovery, spread over all of them by `seed`.

        A recovery may be shorter than it was; then its second crash does not happen, and another pair is drawn.
        """
        firsts = [Point(crossing.number, side) for crossing in crossings for side in SIDES]
        dice = random.Random(seed)
        shares = {
            first: wanted // len(firsts) + (number < wanted % len(firsts))
            for number, first in enumerate(firsts)
        }
        for first in firsts[part::parts]:
            seconds = [Point(crossing.number, side) for crossing in self.recovery(first) for side in SIDES]
            missing = shares[first]
            for second in dice.sample(seconds, len(seconds)):
                if not missing:
                    break
                outcome = self.strike("kill", first, second, label=str(crossings[first.number]))
                missing -= outcome.struck
                yield outcome

    def _start(self) -> State:
        return self._environment.start(self._scenario)

    def _act(self, state: State, strike: str, point: Point) -> ChildReport:
        act = lambda: self._scenario.act(self._environment, state)  # noqa: E731
        accepted = lambda: state.get("accepted", [])  # noqa: E731
        if strike in _OWN:
            return self._environment.child(act, lambda: Watch(point, _OWN[strike]), lambda: (accepted(), []))
        others: list[tuple[int, int]] = []
        ended: list[ChildReport] = []

        def body() -> None:
            try:
                act()
            finally:
                ended.extend(self._environment.end_child(pid, reader) for pid, reader in others)

        def meanwhile(crossing: Crossing) -> None:
            other = self._duplicate(state) if strike == "duplicate" else self._others(state)
            others.append(self._environment.start_child(other, last_words=lambda: (accepted(), [])))
            _stand_still_for(others[-1][0])

        return self._environment.child(body, lambda: Watch(point, meanwhile), lambda: (accepted(), ended))

    def _duplicate(self, state: State) -> Callable[[], None]:
        duplicate = self._scenario.duplicate or self._scenario.act
        return lambda: duplicate(self._environment, state)

    def _others(self, state: State) -> Callable[[], None]:
        def everybody_else() -> None:
            for _ in range(ROUNDS_OF_OTHERS):
                self._recover(state)

        return everybody_else

    def _was_struck(self, report: ChildReport, strike: str, point: Point) -> bool:
        if strike == "kill":
            return report.killed
        # An error that is raised from a cut connection is the product's right; what counts is what is left behind.
        return len(report.crossings) > point.number

    def _unexpected(self, report: ChildReport, strike: str) -> list[str]:
        """Errors of those whom nothing has happened to but somebody else at the same time."""
        if strike in ("cut", "refused") or report.killed:
            return []
        _, others = report.said or ([], [])
        return [
            f"each of two ends in order: {one.error or 'killed'}"
            for one in (report, *others)
            if (one.error or one.killed) and one.kind not in self._scenario.refusals
        ]

    def _note_accepted(self, state: State, report: ChildReport) -> None:
        """What a client was told counts, also when it was told by a process that was struck."""
        told, others = report.said or ([], [])
        for one in others:
            told = [*told, *(one.said or ([], []))[0]]
        if told:
            state["told_by_others"] = told

    def _recover(self, state: State) -> None:
        self._scenario.again(self._environment, state)
        self._environment.processes.round()

    def _finish(self, state: State) -> list[str]:
        """The client repeats its request, everything is redelivered until quiet, and the ledgers are compared."""
        scenario, environment = self._scenario, self._environment
        scenario.again(environment, state)
        try:
            environment.processes.until_quiet()
        except NeverQuiet as stuck:
            return [f"nothing is stuck: {stuck}"]
        except Exception as error:
            return [f"redelivery ends in order: {type(error).__name__}: {error}"]
        found = violations(
            environment,
            accepted=sorted({*state.get("accepted", []), *state.get("told_by_others", [])}),
            waived=frozenset(scenario.waived),
        )
        if unproven := scenario.proves(environment, state):
            found.append(f"{scenario.name}: {unproven}")
        return found


def _stand_still_for(pid: int) -> None:
    """Stand still until the child is a zombie, which its parent collects later, or waits for a lock of this process.

    Such a lock it cannot get before this process goes on, so to wait any longer would show nothing more.
    """
    mine = connection.connection.info.backend_pid if connection.connection is not None else 0
    looking = connection.copy()
    deadline = time.monotonic() + STILL_S
    exited = select.poll()
    exited.register(os.pidfd_open(pid), select.POLLIN)
    try:
        # To look at the locks costs more than most of what the child does.
        while time.monotonic() < deadline and not exited.poll(LOOK_EVERY_S * 1000):
            with looking.cursor() as cursor:
                cursor.execute(
                    "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
                    " AND wait_event_type = 'Lock' AND %s = ANY(pg_blocking_pids(pid)))",
                    [mine],
                )
                if cursor.fetchone()[0]:
                    return
    finally:
        looking.close()
