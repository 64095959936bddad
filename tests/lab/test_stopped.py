"""A signal that interrupts the start of a process leaves none behind: not even its starter has noted the process."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.bench.world import World
from lab.fleet import Fleet
from lab.signals import Stopped
from lab.stack import Stack, StackError, processes
from lab.stack.leftovers import leftovers
from lab.stack.stack import SERVERS

SLEEP = "import time; time.sleep(600)"


def by_a_benchmark(stack: Stack) -> None:
    with World(stack.directory, stack.process_environment()).process(["-c", SLEEP], ready="never said"):
        pass


def by_a_fleet(stack: Stack) -> None:
    procfile = stack.directory / "Procfile"
    procfile.write_text(f"sleeper: exec {sys.executable} -c '{SLEEP}'")
    Fleet(stack.process_environment(), lambda name, line: None, procfile=procfile).start()


def as_a_server(stack: Stack) -> None:
    command = [sys.executable, "-c", SLEEP]
    processes.start(
        command,
        log=stack.directory / "log",
        cwd=stack.directory,
        env=stack.process_environment(),
        parent_death_signal=signal.SIGTERM,
    )


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """Without servers: it is told of others, which no test here asks for anything."""
    for name in SERVERS:
        monkeypatch.setenv(name, "unused://")
    return Stack(tmp_path / "stack", title="test", env_file=None, logs=tmp_path)


@pytest.mark.parametrize("started", [by_a_benchmark, by_a_fleet, as_a_server])
def test_a_stop_that_interrupts_the_start_of_a_process_leaves_none_behind(
    started: Callable[[Stack], None], stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def interrupted(*args: object, **kwargs: object) -> None:
        left.append(popen(*args, **kwargs))  # type: ignore[call-overload]
        raise Stopped(signal.SIGTERM)

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    try:
        with pytest.raises(Stopped), stack:
            started(stack)
        (process,) = left
        assert process.poll() is not None
        assert leftovers(stack.owner) == []
    finally:
        for process in left:
            process.kill()
            process.communicate()


def test_a_stack_that_was_refused_ends_nothing_of_the_one_that_runs(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have one directory, and so one mark; `make up` stops its stack however the start has ended."""
    with stack, subprocess.Popen([sys.executable, "-c", SLEEP], env=stack.process_environment()) as running:
        try:
            second = Stack(stack.directory, title="test", env_file=None)
            monkeypatch.setattr(second._lock, "take", refuse)
            with pytest.raises(StackError):
                second.start()
            second.stop()
            assert running.poll() is None
        finally:
            running.kill()


def refuse(title: str) -> None:
    raise StackError("in use")
