"""The process manager: what dies comes back, what cannot start ends the run, and stopping leaves nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.fleet import Fleet, console, files
from lab.stack import StackError
from lab.stack.leftovers import leftovers

WORDS = list[tuple[str, str]]


def has_ended(pid: int) -> bool:
    """Gone, or a zombie that only waits for its new parent (in a container it may never be collected)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


class Runner:
    """A fleet of a Procfile written by the test."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.said: WORDS = []
        self.fleet: Fleet | None = None

    def start(self, procfile: str) -> Fleet:
        path = self.directory / "Procfile"
        path.write_text(procfile)
        environment = {"PATH": os.environ["PATH"], "HOLDFAST_STACK": str(self.directory)}
        self.fleet = Fleet(environment, lambda name, line: self.said.append((name, line)), procfile=path)
        self.fleet.start()
        return self.fleet

    def until(self, condition: Callable[[], object], seconds: float = 20.0) -> None:
        assert self.fleet is not None
        give_up_at = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < give_up_at, f"did not come true in time; said: {self.said}"
            self.fleet.watch()
            time.sleep(0.02)

    def lines(self, name: str) -> list[str]:
        return [line for who, line in self.said if who == name]


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    runner = Runner(tmp_path)
    yield runner
    if runner.fleet is not None:
        runner.fleet.stop()
    assert leftovers(tmp_path) == []


def test_a_killed_process_is_started_again(runner: Runner) -> None:
    runner.start("web: echo pid $$; exec sleep 60\n")
    runner.until(lambda: runner.lines("web"))
    os.kill(int(runner.lines("web")[0].split()[1]), signal.SIGKILL)
    runner.until(lambda: sum(line.startswith("pid") for line in runner.lines("web")) == 2)


def test_a_process_that_cannot_start_ends_the_run_with_its_last_line(runner: Runner) -> None:
    runner.start("web: echo no module named holdfast; exit 3\n")
    with pytest.raises(StackError, match=r"web keeps stopping \(exit 3\): no module named holdfast"):
        runner.until(lambda: False)


def test_workers_stop_before_the_sandbox_they_talk_to(runner: Runner) -> None:
    trap = "trap 'echo stopping; exit' TERM; echo up; while :; do sleep 0.05; done"
    fleet = runner.start(f"sandbox: {trap}\ncritical: {trap}\nweb: {trap}\n")
    runner.until(lambda: len(runner.said) == 3)
    fleet.stop()
    assert [name for name, line in runner.said if line == "stopping"] == ["web", "critical", "sandbox"]


def test_a_stop_ends_grandchildren_that_ignore_it(runner: Runner) -> None:
    fleet = runner.start("critical: sh -c 'trap \"\" TERM; echo child $$; exec sleep 60' & wait\n")
    runner.until(lambda: runner.lines("critical"))
    child = int(runner.lines("critical")[0].split()[1])
    fleet.stop()
    assert has_ended(child)


def test_a_dying_process_takes_its_pool_with_it_before_it_comes_back(runner: Runner) -> None:
    runner.start("critical: sleep 60 & echo pool $! leader $$; exec sleep 60\n")
    runner.until(lambda: runner.lines("critical"))
    pool, leader = (int(word) for word in runner.lines("critical")[0].split()[1::2])
    os.kill(leader, signal.SIGKILL)
    runner.until(lambda: len(runner.lines("critical")) >= 3)
    assert has_ended(pool)


def test_output_has_a_name_before_each_line(capsys: pytest.CaptureFixture[str]) -> None:
    write = console()
    write("critical", "ready")
    assert capsys.readouterr().out.endswith("critical | ready\n")


def test_output_in_files_is_one_file_a_process(tmp_path: Path) -> None:
    write = files(tmp_path)
    write("web", "one")
    write("relay", "two")
    assert (tmp_path / "web.log").read_text() == "one\n"
    assert (tmp_path / "relay.log").read_text() == "two\n"
