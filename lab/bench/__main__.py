"""`python -m lab.bench [NAME …]`: runs the benchmarks on servers of their own and prints their table."""

from __future__ import annotations

import importlib
import os
import sys
import time
from pathlib import Path

from lab.bench.figures import Figure, fsync_ms, keep
from lab.signals import Stopped, raise_on_stop
from lab.stack import Stack, StackError
from lab.stack.stack import VAR

BENCHMARKS = (
    *("relay", "confirms", "latency", "throughput", "recovery", "idle", "notify", "tables"),
    *("orders", "price"),
)
DIRECTORY = VAR / "bench"


def main(names: list[str]) -> int:
    unknown = set(names) - set(BENCHMARKS)
    if unknown:
        print(
            f"bench: no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}",
            file=sys.stderr,
        )
        return 2
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    # A SIGTERM as such would end this process alone, and leave it to workers with a task in hand when they end.
    raise_on_stop()
    try:
        return _with_servers(names or list(BENCHMARKS))
    except Stopped as stopped:
        print("\nstopped", file=sys.stderr)
        return stopped.exit_code
    except StackError as problem:
        print(f"bench: {problem}", file=sys.stderr)
        return 1


def _with_servers(names: list[str]) -> int:
    # Durable, unlike the servers of the tests: a benchmark without fsync would flatter everybody.
    stack = Stack(DIRECTORY / "stack", title="make bench", env_file=None, fresh=True)
    try:
        # Not `with stack:`, since a signal between the end of its start and the block would leave the servers running.
        stack.start()
        environment = {**stack.process_environment(), "DJANGO_SETTINGS_MODULE": "lab.bench.settings"}
        # Relays inside this process are measured without a worker: the valve would stop them.
        os.environ.update({**environment, "OUTBOX_DEPTH_LIMIT": "1000000"})
        return _run(names, environment)
    finally:
        stack.stop()


def _run(names: list[str], environment: dict[str, str]) -> int:
    import django

    django.setup()
    from django.core.management import call_command

    from lab.bench.world import World
    from lab.prepare import check_servers

    check_servers()
    call_command("migrate", verbosity=0)
    world = World(DIRECTORY, environment)
    everything: list[Figure] = []
    failed = []
    machine = _machine()
    print(f"{machine['cores']} cores, load {machine['load']}, fsync {machine['fsync_ms']:.3f} ms", flush=True)
    for name in names:
        began = time.monotonic()
        world.empty()
        try:
            figures = importlib.import_module(f"lab.bench.{name}").run(world)
        except (RuntimeError, StackError) as problem:
            # The others' figures, half an hour of them, are not lost with it.
            print(f"bench: {name}: {problem}", file=sys.stderr, flush=True)
            failed.append(name)
            continue
        machine = _machine()
        keep(DIRECTORY, name, figures, machine)
        print(
            f"\n{name}: {time.monotonic() - began:.0f} s; load {machine['load']}, fsync {machine['fsync_ms']:.3f} ms"
        )
        for figure in figures:
            print(f"  {figure.line()}", flush=True)
        everything += figures
    print(f"\nevery turn of every figure: {DIRECTORY.relative_to(Path.cwd())}/*.json")
    if failed:
        return 1
    return 0 if all(figure.met for figure in everything) else 3


def _machine() -> dict[str, object]:
    """What a figure must be read beside."""
    return {
        "cores": os.cpu_count(),
        "load": f"{os.getloadavg()[0]:.1f}",
        "fsync_ms": fsync_ms(DIRECTORY),
        "python": sys.version.split()[0],
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
