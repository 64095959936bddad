"""`python -m lab.faultpoints`: explore, replay a point, list a trace."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.faultpoints import explorers
from lab.faultpoints.boundaries import STRIKES, Crossing, Point
from lab.faultpoints.servers import environments

#: One more than cores: an explorer waits for its servers now and then.
EXPLORERS = (os.cpu_count() or 1) + 1
#: Scenario -> how many pairs of a kill and a kill in its recovery: the fan-out of an order, the queues, an ordered group,
#: money that goes back, and a run in one transaction.
PAIRED = {"process_order": 350, "relay": 200, "deliver": 155, "refund_order": 155, "publish_event": 155}
SEED = 20_260_101
#: Boundaries a job: few, so that no explorer waits for the others at the end.
BOUNDARIES = 5
INTERRUPTED = 130


@dataclass
class Row:
    """One line of the table; `points` are those that were struck."""

    points: int = 0
    unreached: int = 0
    seconds: float = 0.0
    failed: int = 0


def main() -> int:
    options = _parser().parse_args()
    options.strike = options.strike or list(STRIKES)
    alone = options.point is not None or options.list
    if alone and not options.scenario:
        _parser().error("--point and --list need --scenario")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with environments(1 if alone else EXPLORERS) as found:
        context = multiprocessing.get_context("spawn")
        given = context.SimpleQueue()
        for environment in found:
            given.put(environment)
        with ProcessPoolExecutor(
            len(found), mp_context=context, initializer=explorers.begin, initargs=(given, options.mutation)
        ) as pool:
            if options.list:
                print("\n".join(map(str, pool.submit(explorers.trace, options.scenario[0]).result())))
                return 0
            if options.point:
                outcome = pool.submit(
                    explorers.strike, options.scenario[0], options.strike[0], options.point, options.second
                ).result()
                return _report_one(outcome)
            try:
                return _explore(pool, options)
            except KeyboardInterrupt:
                # The pool would wait for what the explorers are at.
                for process in multiprocessing.active_children():
                    process.kill()
                pool.shutdown(cancel_futures=True)
                return INTERRUPTED


def _explore(pool: ProcessPoolExecutor, options: argparse.Namespace) -> int:
    began = time.monotonic()
    names = options.scenario or pool.submit(explorers.names).result()
    without = pool.submit(explorers.missing).result()
    rows: defaultdict[tuple[str, str], Row] = defaultdict(Row)
    failures: list[Any] = []
    jobs: dict[Future[Any], tuple[str, str]] = {
        pool.submit(explorers.trace, name): (name, "trace") for name in names
    }
    while jobs:
        for job in wait(jobs, return_when=FIRST_COMPLETED).done:
            name, kind = jobs.pop(job)
            try:
                result = job.result()
            except Exception as error:
                failures.append(f"{name} {kind}: {error}")
                continue
            if kind == "trace":
                jobs |= _strikes(pool, options, name, result)
            else:
                _enter(result, rows[name, kind], failures)
        # As parts finish, so that a run that is interrupted leaves its figures.
        _write(options.json, _summary(rows, failures, without, time.monotonic() - began, complete=not jobs))
    seconds = time.monotonic() - began
    _print_table(rows, seconds)
    _print_failures(failures)
    for name in without:
        print(f"NO SCENARIO for {name}: add one to lab/faultpoints/scenarios.py")
    return 1 if failures or without else 0


def _strikes(
    pool: ProcessPoolExecutor, options: argparse.Namespace, name: str, crossings: list[Crossing]
) -> dict[Future[Any], tuple[str, str]]:
    """The jobs of one scenario, whose boundaries are known now."""
    parts = -(-len(crossings) // BOUNDARIES)
    jobs = {
        pool.submit(explorers.explore, name, strike, crossings, part, parts): (name, strike)
        for strike in options.strike
        for part in range(parts)
    }
    if options.pairs and name in PAIRED:
        for part in range(2 * parts):
            job = pool.submit(explorers.pairs, name, PAIRED[name], SEED, crossings, part, 2 * parts)
            jobs[job] = (name, "pair")
    return jobs


def _enter(result: tuple[list[Any], float], row: Row, failures: list[Any]) -> None:
    outcomes, seconds = result
    row.seconds += seconds
    for outcome in outcomes:
        row.points += outcome.struck
        row.unreached += not outcome.struck
        row.failed += bool(outcome.violations)
        if outcome.violations:
            failures.append(outcome)


def _write(path: str | None, summary: dict[str, Any]) -> None:
    if path:
        written = Path(f"{path}.part")
        written.write_text(json.dumps(summary, indent=1))
        written.replace(path)


def _print_table(rows: dict[tuple[str, str], Row], seconds: float) -> None:
    print(f"{'scenario':32} {'strike':8} {'points':>6} {'failed':>6} {'seconds':>8}")
    for (name, strike), row in sorted(rows.items(), key=lambda item: (item[0][1], item[0][0])):
        print(f"{name:32} {strike:8} {row.points:6} {row.failed:6} {row.seconds:8.1f}")
    totals = _totals(rows)
    print(", ".join(f"{count} {strike}" for strike, count in totals.items()), f"in {seconds:.0f} s")


def _print_failures(failures: Iterable[Any]) -> None:
    for failure in failures:
        if isinstance(failure, str):
            print(f"ERROR {failure}")
        else:
            print(
                f"FAILED {failure.scenario} {failure.strike} {failure.point} {failure.second or ''} {failure.crossing}"
            )
            print(f"  {failure.replay()}")
            for violation in failure.violations:
                print(f"  {violation}")


def _report_one(outcome: Any) -> int:
    print(f"{outcome.replay()}: {'struck' if outcome.struck else 'NOT REACHED'}")
    print("\n".join(outcome.violations) or "everything holds")
    return 1 if outcome.violations else 0


def _totals(rows: dict[tuple[str, str], Row]) -> dict[str, int]:
    totals: defaultdict[str, int] = defaultdict(int)
    for (_, strike), row in rows.items():
        totals[strike] += row.points
    return dict(totals)


def _summary(
    rows: dict[tuple[str, str], Row],
    failures: list[Any],
    without: list[str],
    seconds: float,
    *,
    complete: bool,
) -> dict[str, Any]:
    return {
        "complete": complete,
        "points": _totals(rows),
        "unreached": {" ".join(key): row.unreached for key, row in rows.items() if row.unreached},
        "scenarios": len({name for name, _ in rows}),
        "seconds": seconds,
        "missing": without,
        "failures": [
            failure
            if isinstance(failure, str)
            else {"replay": failure.replay(), "crossing": failure.crossing, "violations": failure.violations}
            for failure in failures
        ],
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab.faultpoints", description=explorers.__doc__)
    parser.add_argument("--scenario", action="append", help="only this one (may be repeated)")
    parser.add_argument("--strike", action="append", choices=STRIKES, help="what happens there")
    parser.add_argument("--point", type=Point.parse, help="replay one point: NUMBER:before or NUMBER:after")
    parser.add_argument("--second", type=Point.parse, help="and a kill in the recovery from it")
    parser.add_argument("--list", action="store_true", help="print the trace of the scenario")
    parser.add_argument("--no-pairs", dest="pairs", action="store_false", help="no second crashes")
    parser.add_argument("--mutation", help="with this guard removed (lab.faultpoints.mutations)")
    parser.add_argument("--json", help="write a summary to this file")
    return parser


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    sys.exit(main())
