"""`python -m lab.faultpoints.check_mutations`: each mutation, and the check that notices it. Exit status 1 if none does."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import queue
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

from lab.faultpoints import explorers
from lab.faultpoints.mutations import MUTATIONS
from lab.faultpoints.servers import environments

HUNTERS = 2
INTERRUPTED = 130


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lab.faultpoints.check_mutations", description=__doc__)
    parser.add_argument(
        "--mutation", action="append", choices=sorted(MUTATIONS), help="only this one (may be repeated)"
    )
    parser.add_argument("--json", help="write the table to this file")
    options = parser.parse_args()
    names = options.mutation or list(MUTATIONS)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    with environments(min(HUNTERS, len(names))) as found:
        free: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        for environment in found:
            free.put(environment)
        with ThreadPoolExecutor(len(found)) as hunters:
            try:
                caught = dict(zip(names, hunters.map(lambda name: _hunt(name, free), names), strict=True))
            except KeyboardInterrupt:
                hunters.shutdown(wait=False, cancel_futures=True)
                # The hunters would wait for what their explorers are at.
                for process in multiprocessing.active_children():
                    process.kill()
                return INTERRUPTED
    loose = [name for name in names if not caught[name][1]]
    print(
        f"{len(names) - len(loose)} of {len(names)} mutations are caught, in {time.monotonic() - began:.0f} s"
    )
    if options.json:
        Path(options.json).write_text(json.dumps(caught, indent=1))
    return 1 if loose else 0


def _hunt(name: str, free: queue.SimpleQueue[dict[str, str]]) -> tuple[str, str]:
    """In a process of its own, since a guard that is removed stays removed."""
    environment = free.get()
    context = multiprocessing.get_context("spawn")
    given = context.SimpleQueue()
    given.put(environment)
    try:
        with ProcessPoolExecutor(
            1, mp_context=context, initializer=explorers.begin, initargs=(given, name)
        ) as pool:
            violation, where = pool.submit(explorers.hunt, name).result()
    except Exception as error:
        violation, where = f"{type(error).__name__}: {error}", ""
    finally:
        free.put(environment)
    verdict = "caught" if where else "NOT CAUGHT"
    print(f"{verdict:10} {name:62} {where:34} {violation[:110]}", flush=True)
    return violation, where


if __name__ == "__main__":
    sys.exit(main())
