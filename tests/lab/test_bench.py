"""The benchmarks' own arithmetic, and one of them in small. Figures are not judged here: `make bench` does that."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from config.celery import app
from lab.bench import __main__ as bench
from lab.bench.figures import Figure, fsync_ms, keep, percentile, ratio, take_turns
from lab.bench.relay import Nowhere
from lab.bench.throughput import ONE_BY_ONE, SHORT
from lab.bench.world import World, open_messages, stage
from lab.stack.leftovers import leftovers
from lab.stack.processes import OWNER
from lab.stack.stack import ROOT
from outbox.relay.loop import Relay
from tests.support.checkout import INHERITED
from tests.support.processes import await_, environment


def test_a_figure_is_met_on_its_goal_and_missed_beyond_it() -> None:
    assert Figure("rate", 10, "x", least=10).met
    assert not Figure("rate", 9.99, "x", least=10).met
    assert Figure("wait", 15, "ms", most=15).met
    assert "MISSED" in Figure("wait", 15.1, "ms", most=15).line()
    assert "met" not in Figure("only shown", 1, "s").line()


def test_sides_take_turns_in_a_rotating_order() -> None:
    order: list[str] = []

    def side(name: str) -> float:
        order.append(name)
        return 1.0

    turns = take_turns(2, {"a": lambda: side("a"), "b": lambda: side("b")})

    assert order == ["a", "b", "b", "a"]
    assert turns == {"a": [1.0, 1.0], "b": [1.0, 1.0]}


def test_a_ratio_is_the_median_of_the_turns() -> None:
    """So that one slow turn does not count."""
    assert ratio({"a": [20.0, 20.0, 1.0], "b": [10.0, 10.0, 10.0]}, "a", "b") == 2.0


@pytest.mark.parametrize(("percent", "expected"), [(50, 50), (99, 99), (100, 100), (99.5, 100)])
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(
    percent: float, expected: float
) -> None:
    assert percentile(list(range(100, 0, -1)), percent) == expected


def test_figures_are_kept_with_all_their_turns_and_the_machine(tmp_path: Path) -> None:
    path = keep(tmp_path, "relay", [Figure("rate", 2.0, "x", least=1, turns={"a": [1.0]})], {"fsync_ms": 0.1})

    kept = json.loads(path.read_text())
    assert kept["machine"] == {"fsync_ms": 0.1}
    assert kept["figures"][0]["turns"] == {"a": [1.0]}
    assert kept["figures"][0]["met"] is True


def test_the_fsync_probe_leaves_nothing_behind(tmp_path: Path) -> None:
    assert fsync_ms(tmp_path, times=3) > 0
    assert not list(tmp_path.iterdir())


def test_an_unknown_benchmark_is_named_together_with_those_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert bench.main(["relay", "speed"]) == 2
    assert "no benchmark speed; there are relay, confirms" in capsys.readouterr().err


@pytest.mark.slow
def test_a_stopped_benchmark_leaves_no_process_behind() -> None:
    command = [sys.executable, "-m", "lab.bench", "idle"]
    # Servers of its own, to be ended with the rest; those that it is told of, it would empty.
    env = {name: value for name, value in os.environ.items() if name not in INHERITED}
    running = subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        await_(lambda: any("celery" in command for command in of_the_bench()), "a worker runs", 180)
    finally:
        running.terminate()
        output, _ = running.communicate(timeout=60)
    assert (running.returncode, output.splitlines()[-1]) == (128 + signal.SIGTERM, "stopped")
    assert of_the_bench() == []
    assert leftovers(bench.DIRECTORY / "stack") == []


def test_a_server_that_does_not_answer_is_named_in_one_line() -> None:
    env = {name: value for name, value in os.environ.items() if name not in INHERITED}
    ran = subprocess.run(
        [sys.executable, "-m", "lab.bench", "orders"],
        cwd=ROOT,
        env={**env, "DATABASE_URL": "postgres://shop:secret@127.0.0.1:1/shop"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr.startswith("bench: no answer from the servers of DATABASE_URL (")
    assert len(ran.stderr.splitlines()) == 1
    assert leftovers(bench.DIRECTORY / "stack") == []


def test_peers_that_are_not_installed_are_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_PEERS", str(tmp_path / "python"))
    with pytest.raises(RuntimeError, match=r"^no peers at .*/python: `make bench` installs them"):
        World(tmp_path, {}).peer(["-c", "pass"])


def test_a_peer_that_fails_is_shown_with_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_PEERS", sys.executable)
    with pytest.raises(RuntimeError, match=r"ended with 1: ModuleNotFoundError: No module named 'no_such'$"):
        World(tmp_path, dict(os.environ)).peer(["-c", "import no_such"])


def of_the_bench() -> list[str]:
    """The command lines of its processes, by the mark that it leaves in their environments; servers change theirs."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"{OWNER}={bench.DIRECTORY / 'stack'}".encode() in (entry / "environ").read_bytes().split(
                b"\0"
            ):
                found.append((entry / "cmdline").read_text())
    return found


@pytest.mark.django_db(transaction=True)
def test_staged_messages_are_what_a_relay_finds() -> None:
    stage(3)

    assert Relay(app, publisher=Nowhere(app), batch=2).run_once() == 2
    assert open_messages() == 3


@pytest.mark.parametrize("env", [SHORT, ONE_BY_ONE])
def test_a_worker_may_start_with_the_settings_of_a_benchmark(db: None, env: dict[str, str]) -> None:
    """A check that refuses them would be seen only by the next one who runs the benchmark."""
    program = (
        "import django; django.setup(); from outbox.checks import serious; print(serious(runs_tasks=True))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment(env),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout == "[]\n", ran.stderr


def test_a_peers_own_application_leaves_our_tasks_to_the_outbox(db: None) -> None:
    """It was imported by one benchmark, and the next one waited for messages that were never written."""
    from lab.bench.peers import plain
    from lab.bench.tasks import noop

    assert app.tasks[noop.name] is not plain.app.tasks.get(noop.name)
    noop.delay(1)
    assert open_messages() == 1
