"""Real workers for tests: `celery worker` processes, started and stopped by the test, on the test's database
and broker.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db import connection

from config.celery import app

ROOT = Path(__file__).resolve().parent.parent.parent
START_WITHIN_S = 30.0
STOP_WITHIN_S = 15.0


def wait_until(condition: Callable[[], Any], *, within_s: float = 20.0, what: str = "") -> Any:
    """Poll until `condition()` is true and return what it returned; fails the test with `what` after
    `within_s`.
    """
    deadline = time.monotonic() + within_s
    while True:
        outcome = condition()
        if outcome:
            return outcome
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {what or condition}")
        time.sleep(0.02)


@dataclass
class Worker:
    """A running worker: its process, its node name and its log."""

    process: subprocess.Popen[bytes]
    hostname: str
    log_path: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def children(self) -> list[int]:
        """The pids of its pool processes."""
        found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.pid)], capture_output=True, text=True)
        return [int(pid) for pid in found.stdout.split()]

    def cpu_s(self) -> float:
        """CPU seconds that the worker's parent process has used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def signal(self, number: int) -> None:
        """Send a signal to the worker's parent process only."""
        self.process.send_signal(number)

    def stop(self, *, within_s: float = STOP_WITHIN_S) -> int:
        """Stop it as an operator does, with SIGTERM; SIGKILL to what is left of its process group. Its exit
        code.
        """
        with suppress(ProcessLookupError):
            self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(within_s)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return self.process.wait(within_s)


def environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a process that shall see the test's database instead of the ordinary one."""
    values = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONUNBUFFERED": "1"}
    base, _, tail = os.environ["DATABASE_URL"].partition("?")
    # pytest-django's name for the run; the URL still names the database that it was derived from.
    values["DATABASE_URL"] = f"{base.rpartition('/')[0]}/{connection.settings_dict['NAME']}"
    if tail:
        values["DATABASE_URL"] += f"?{tail}"
    # Workers that a killed test left behind in a stack directory must not be found by the next.
    values.pop("PYTEST_CURRENT_TEST", None)
    return {**values, **(env or {})}


@contextmanager
def worker(
    queues: Sequence[str] = ("default",),
    concurrency: int = 2,
    env: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
) -> Iterator[Worker]:
    """A prefork worker that consumes `queues`, ready when the block begins; the log is printed if the block
    fails.

    `env`: more environment variables; `options`: more arguments of `celery worker`.
    """
    hostname = f"{uuid.uuid4().hex[:8]}@test"
    with tempfile.TemporaryDirectory(prefix="holdfast-worker-") as directory:
        log_path = Path(directory) / "log"
        command = [
            *(sys.executable, "-m", "celery", "-A", "config", "worker", "-P", "prefork", "-l", "INFO"),
            *("-Q", ",".join(queues), "-c", str(concurrency), "-n", hostname),
            *("--without-gossip", "--without-mingle", "--without-heartbeat", *options),
        ]
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment(env), stdout=log, stderr=log, start_new_session=True
            )
        running = Worker(process, hostname, log_path)
        try:
            wait_until(lambda: _ready(running), within_s=START_WITHIN_S, what="the worker answers a ping")
            yield running
        except BaseException:
            sys.stderr.write(f"--- log of worker {hostname} ---\n{running.log}\n")
            raise
        finally:
            running.stop()


def _ready(running: Worker) -> bool:
    if not running.alive:
        raise AssertionError(f"the worker ended with {running.process.returncode} before it was ready")
    return " ready." in running.log and bool(app.control.ping([running.hostname], timeout=0.5))
