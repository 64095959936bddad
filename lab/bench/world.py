"""What benchmarks stand on: the servers, the processes under test, and rows made by the thousand."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import redis
from django.db import connection

from lab.bench import cpu, effects
from lab.stack.processes import die_with_parent, kill_group, stop
from lab.stack.stack import ROOT

START_TIMEOUT_S = 90.0

_STAGE = """
INSERT INTO outbox_outboxmessage (message_id, task, args, kwargs, headers, queue, status, published_at, done_at,
                                  deliver_at, ordering_key)
SELECT gen_random_uuid(), %(task)s, jsonb_build_array(n), '{}', '{}', 'default', %(status)s,
       CASE %(status)s WHEN 'done' THEN clock_timestamp() END, CASE %(status)s WHEN 'done' THEN clock_timestamp() END,
       clock_timestamp() + %(delay)s * interval '1 second',
       CASE WHEN %(groups)s > 0 THEN 'group-' || n %% greatest(1, %(groups)s) ELSE '' END
FROM generate_series(1, %(count)s) n
"""
_OPEN = "SELECT count(*) FROM outbox_outboxmessage WHERE status IN ('scheduled', 'blocked', 'pending', 'published')"


def stage(
    count: int,
    *,
    task: str = "lab.bench.tasks.noop",
    status: str = "pending",
    delay_s: float = 0.0,
    groups: int = 0,
) -> None:
    """Commit that many messages at once, due in `delay_s`, of as many ordered groups."""
    values: dict[str, str | float] = {
        "task": task,
        "count": count,
        "status": status,
        "delay": delay_s,
        "groups": groups,
    }
    with connection.cursor() as cursor:
        cursor.execute(_STAGE, values)


def open_messages() -> int:
    with connection.cursor() as cursor:
        cursor.execute(_OPEN)
        return int(cursor.fetchone()[0])


def wait_until(
    condition: Callable[[], object], what: str, *, seconds: float = 120.0, every_s: float = 0.02
) -> None:
    """Wait until the condition holds. Raises RuntimeError that says what did not happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not within {seconds:g} s")
        time.sleep(every_s)


@contextmanager
def one_core() -> Iterator[None]:
    """This process on one core; servers and others keep the rest."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Process:
    """A process under test, in a group of its own, its output in a file."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.popen = popen
        self.log = log

    def kill(self) -> None:
        """SIGKILL to it and its children at once."""
        os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()

    def cpu_s(self) -> float:
        """The CPU time that it and its living children have used."""
        return sum(cpu.of_process_s(pid) for pid in self._pids())

    def _pids(self) -> list[int]:
        found = subprocess.run(
            ["ps", "-o", "pid=", "-g", str(self.popen.pid)], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in found.stdout.split()]


class World:
    """The servers of one run and the processes that work on them."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.directory = directory
        #: That of every process under test, with the addresses of the servers.
        self.environment = dict(environment)
        self._names = itertools.count()
        #: The Python that has the peers. A venv of their own: beside psycopg 3, Django would leave psycopg2.
        self.peers = os.environ.get("BENCH_PEERS") or str(ROOT / ".venv" / "peers" / "bin" / "python")

    def empty(self) -> None:
        """No message, no effect, an empty broker."""
        with connection.cursor() as cursor:
            cursor.execute("TRUNCATE outbox_outboxmessage, outbox_worker, outbox_relayprocess")
        effects.clear()
        with redis.Redis.from_url(os.environ["BROKER_URL"]) as client:
            client.flushall()

    @contextmanager
    def process(
        self,
        arguments: Sequence[str],
        *,
        ready: str,
        env: Mapping[str, str] | None = None,
        python: str = sys.executable,
    ) -> Iterator[Process]:
        """Run `python arguments…` until the block ends; begins when its output holds `ready`."""
        with ExitStack() as ending:
            log = ending.enter_context(tempfile.NamedTemporaryFile(dir=self.directory, suffix=".log"))
            # One that a signal interrupts before it is noted here is ended by the stack, whose mark it carries.
            popen = subprocess.Popen(
                [python, *arguments],
                cwd=ROOT,
                env={**self.environment, "PYTHONUNBUFFERED": "1", **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGTERM),
            )
            # Children that it leaves behind, too.
            ending.callback(kill_group, popen.pid)
            ending.callback(stop, popen, [(signal.SIGTERM, 20.0)])
            process = Process(popen, Path(log.name))

            def started() -> bool:
                output = process.log.read_text(errors="replace")
                if ready not in output and popen.poll() is not None:
                    last = (output.strip() or "no output").splitlines()[-1]
                    raise RuntimeError(f"{' '.join(arguments)} ended with {popen.returncode}: {last}")
                return ready in output

            wait_until(started, f"{ready!r} from {' '.join(arguments)}", seconds=START_TIMEOUT_S)
            yield process

    @contextmanager
    def worker(
        self,
        *,
        concurrency: int = 2,
        app: str = "config",
        queue: str = "default",
        env: Mapping[str, str] | None = None,
    ) -> Iterator[Process]:
        """A prefork worker, as the Procfile starts it."""
        arguments = ["-m", "celery", "-A", app, "worker", "--loglevel", "INFO", "--queues", queue]
        arguments += ["--concurrency", str(concurrency), "--without-gossip", "--without-mingle"]
        # RabbitMQ gives the queue for remote control to one worker of a name: a second one would never be ready.
        arguments += ["--hostname", f"bench{next(self._names)}@%h"]
        with self.process(arguments, ready=" ready.", env=env) as process:
            yield process

    @contextmanager
    def relay(self, *, env: Mapping[str, str] | None = None) -> Iterator[Process]:
        with self.process(["manage.py", "outbox_relay"], ready="relay: running", env=env) as process:
            yield process

    def peer(self, arguments: Sequence[str], *, env: Mapping[str, str] | None = None) -> str:
        """Run the peers' Python to its end; returns what it printed. Raises RuntimeError with its last words."""
        self.check_peers()
        done = subprocess.run(
            [self.peers, *arguments],
            cwd=ROOT, env={**self.environment, **(env or {})}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            last = (done.stderr.strip() or "no output").splitlines()[-1]
            raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}: {last}")
        return done.stdout

    def check_peers(self) -> None:
        """Raises RuntimeError where the peers are not installed."""
        if not os.access(self.peers, os.X_OK):
            raise RuntimeError(
                f"no peers at {self.peers}: `make bench` installs them, or BENCH_PEERS says where they are"
            )
