"""Real processes for delivery tests: workers, relays and beats on the test's own database and broker."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from django.conf import settings
from django.db import connection

from lab.bench.cpu import of_process_s

ROOT = Path(__file__).resolve().parent.parent.parent
#: A worker process imports Django and every task; on two busy cores this takes seconds.
START_TIMEOUT_S = 60.0


def await_(condition: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
    """Wait until the condition holds. Raises AssertionError that says what did not happen."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:g} s"
        time.sleep(0.02)


@dataclass
class Process:
    """A started process: its own process group, its output in a file."""

    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    def cpu_s(self) -> float:
        """Seconds that the process itself has computed so far, its children not counted."""
        return of_process_s(self.pid)

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def alive(self) -> bool:
        return self.popen.poll() is None

    def children(self) -> list[int]:
        """The pids of the direct children: a worker's pool processes."""
        found = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.pid)], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in found.stdout.split()]

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill_group(self) -> None:
        """SIGKILL to the process and all its children, at once."""
        os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait(10)

    def stop(self, timeout_s: float = 30.0) -> int:
        """SIGTERM, and wait for the end; returns the exit status."""
        if self.alive():
            self.signal(signal.SIGTERM)
        return self.popen.wait(timeout_s)

    def wait_for_output(self, text: str, timeout_s: float = START_TIMEOUT_S) -> None:
        def seen() -> bool:
            assert self.alive() or text in self.output(), (
                f"ended with {self.popen.returncode}:\n{self.output()[-4000:]}"
            )
            return text in self.output()

        await_(seen, f"{text!r} in the output of {self.popen.args!r}", timeout_s)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a process that shall work on the test database."""
    url = urlsplit(os.environ["DATABASE_URL"])
    database = urlunsplit(url._replace(path="/" + str(connection.settings_dict["NAME"])))
    return {
        **os.environ,
        "DATABASE_URL": database,
        "DJANGO_SETTINGS_MODULE": os.environ.get("DJANGO_SETTINGS_MODULE", "tests.settings"),
        "SECRET_KEY": settings.SECRET_KEY,
        "PYTHONUNBUFFERED": "1",
        **(extra or {}),
    }


@contextmanager
def started(
    arguments: Sequence[str], *, env: Mapping[str, str] | None = None, ready: str
) -> Iterator[Process]:
    """Run `python arguments…` until the block ends; its whole process group is gone afterwards."""
    with running([sys.executable, *arguments], cwd=ROOT, env=environment(env), ready=ready) as process:
        yield process


@contextmanager
def running(command: Sequence[str], *, cwd: Path, env: Mapping[str, str], ready: str) -> Iterator[Process]:
    """Run a command in exactly this environment until the block ends; its whole process group is gone afterwards."""
    with tempfile.NamedTemporaryFile(prefix="holdfast-process-", suffix=".log", delete=False) as log:
        popen = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    process = Process(popen, Path(log.name))
    try:
        process.wait_for_output(ready)
        yield process
    except BaseException:
        sys.stderr.write(f"--- output of {' '.join(command)} ---\n{process.output()[-8000:]}\n")
        raise
    finally:
        if process.alive():
            process.signal(signal.SIGCONT)
            process.signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                popen.wait(15)
        with suppress(ProcessLookupError):
            os.killpg(popen.pid, signal.SIGKILL)
        popen.wait(10)
        process.log.unlink(missing_ok=True)


@contextmanager
def worker(
    *,
    queues: Sequence[str] = ("default",),
    concurrency: int = 2,
    env: Mapping[str, str] | None = None,
    name: str = "w",
) -> Iterator[Process]:
    """A real prefork worker, ready to receive."""
    arguments = [
        "-m", "celery", "-A", "config", "worker", "--loglevel", "INFO", "--queues", ",".join(queues),
        "--concurrency", str(concurrency), "--hostname", f"{name}@test", "--without-gossip", "--without-mingle",
    ]  # fmt: skip
    with started(arguments, env=env, ready=" ready.") as process:
        yield process


@contextmanager
def web(*options: str, env: Mapping[str, str] | None = None) -> Iterator[tuple[Process, str]]:
    """A real web process of four threads, and its address."""
    arguments = ["-m", "gunicorn", "config.wsgi", "--bind", "127.0.0.1:0", "--threads", "4", *options]
    with started(arguments, env=env, ready="Booting worker") as process:
        found = re.search(r"Listening at: (http://\S+)", process.output())
        assert found
        yield process, found.group(1)


@contextmanager
def relay(*, batch: int | None = None, env: Mapping[str, str] | None = None) -> Iterator[Process]:
    """A real relay."""
    arguments = ["manage.py", "outbox_relay", *(["--batch", str(batch)] if batch else [])]
    with started(arguments, env=env, ready="relay: running") as process:
        yield process
