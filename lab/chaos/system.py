"""What the faults act on: the processes, the servers, the routes between them, and eyes that look past the proxy."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import redis

from lab.chaos.brokers import Broker, RedisBroker
from lab.chaos.clients import Clients
from lab.chaos.proxy import FaultProxy, Route
from lab.collect import Sandbox
from lab.fleet import Fleet
from lab.stack.pgbouncer import PgBouncer

#: What cannot be asked now because its server is down says so with one of these.
SERVER_DOWN = (psycopg2.Error, redis.RedisError, OSError, RuntimeError)


class Database:
    """A connection of the observer's own, past the proxy; made anew when the server was killed."""

    def __init__(self, url: str):
        self._url = url
        self._connection: Any = None

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement in autocommit. Raises psycopg2.Error while the server is down."""
        if self._connection is None or self._connection.closed:
            self._connection = psycopg2.connect(
                self._url, connect_timeout=2, application_name="chaos", options="-c statement_timeout=5000"
            )
            self._connection.autocommit = True
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(sql, values)
                return cursor.fetchall() if cursor.description else []
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            self.close()
            raise

    def number(self, sql: str, *values: Any) -> int:
        return int(self.rows(sql, *values)[0][0] or 0)

    def connect(self) -> Any:
        """One more connection, for an experiment that holds many."""
        return psycopg2.connect(self._url, connect_timeout=2, application_name="chaos")

    def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(psycopg2.Error):
                self._connection.close()
            self._connection = None


class System:
    """The running system under test."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        proxy: FaultProxy,
        database: Database,
        broker: Broker,
        redis: RedisBroker,
        pooler: PgBouncer | None,
        sandbox: Sandbox,
        clients: Clients,
    ):
        self.fleet = fleet
        self.proxy = proxy
        self.database = database
        self.broker = broker
        self.redis = redis  # the broker itself, or beside RabbitMQ the server of locks and cache
        self.pooler = pooler
        self.sandbox = sandbox
        self.clients = clients
        #: Programs, servers and services on which a lasting fault lies now.
        self.held: set[str] = set()
        #: Ids of garbage that was put into the broker, and when how many messages were added to it.
        self.injected: set[str] = set()
        self._added: deque[tuple[float, int]] = deque()
        self._journal: deque[tuple[float, Path, int]] = deque(maxlen=20)
        self.dials: dict[str, dict[str, float]] = {}
        self.bitten: Counter[tuple[str, str]] = Counter()
        self._sandbox_pid: int | None = None

    # Processes.

    def programs(self, role: str) -> list[str]:
        """Programs of a role that run and on which no fault lies: `worker` is worker-a, worker-b, ..."""
        names = [name for name in self.fleet.names if re.fullmatch(rf"{role}(-\w+)?", name)]
        return [name for name in names if name not in self.held and self.fleet.pid(name) is not None]

    def pid(self, name: str) -> int:
        return self.fleet.pid(name) or 0

    def children(self, name: str) -> list[int]:
        return children(self.pid(name))

    def busy_children(self, name: str) -> list[int]:
        """Children of a worker that have a task in hand."""
        return [pid for pid in children(self.pid(name)) if is_busy(pid)]

    def thaw(self) -> None:
        """Let every process go on that a fault has stopped, so that it can end."""
        for name in self.fleet.names:
            for pid in [self.pid(name), *self.children(name)]:
                if pid:
                    kill(pid, signal.SIGCONT)

    # What is in flight.

    def running_messages(self) -> int:
        """Tasks that run at this moment."""
        return sum(len(self.busy_children(name)) for name in self.programs("worker"))

    def moving_messages(self) -> int:
        """Messages that a relay has marked a moment ago, or is about to."""
        return self.database.number(
            "SELECT (SELECT count(*) FROM outbox_outboxmessage WHERE status = 'pending')"
            " + (SELECT count(*) FROM outbox_outboxmessage WHERE status = 'published' AND started_at IS NULL"
            " AND published_at > clock_timestamp() - interval '200 milliseconds')"
        )

    def transactions(self) -> list[int]:
        """Pids of the backends that are inside a transaction of the application."""
        rows = self.database.rows(
            "SELECT pid FROM pg_stat_activity WHERE xact_start IS NOT NULL AND backend_type = 'client backend'"
            " AND application_name <> 'chaos' AND datname = current_database()"
        )
        return [pid for (pid,) in rows]

    def in_broker(self) -> int:
        """Messages that are ready, or that somebody has in hand."""
        return sum(self.broker.depths().values()) + max(self.broker.in_hand(), self.running_messages())

    # Bookkeeping.

    def added_to_broker(self, count: int) -> None:
        self._added.append((time.monotonic(), count))

    def lately_added(self, seconds: float = 60.0) -> int:
        """How many messages the experiment itself has put into the broker lately."""
        while self._added and self._added[0][0] < time.monotonic() - seconds:
            self._added.popleft()
        return sum(count for _, count in self._added)

    def note_journal(self) -> None:
        """Remember how long Redis' append-only file was; to be called a few times a second."""
        if isinstance(self.broker, RedisBroker):
            with contextlib.suppress(*SERVER_DOWN):
                path = self.broker.journal()
                if path is not None:
                    self._journal.append((time.monotonic(), path, path.stat().st_size))

    def journal_a_second_ago(self) -> tuple[Path, int] | None:
        now = time.monotonic()
        old = [(path, size) for at, path, size in self._journal if now - at >= 1.0]
        return old[-1] if old else None

    def count_bites(self) -> None:
        """Add what the dials did since they were last turned; the sandbox forgets it when they are turned again."""
        for service, dials in self.sandbox.bitten().items():
            for dial, count in dials.items():
                self.bitten[service, dial] += count

    def keep_dials(self) -> None:
        """A sandbox that was killed comes back with calm dials: turn them up again."""
        pid = self.fleet.pid("sandbox")
        if pid != self._sandbox_pid and pid is not None:
            with contextlib.suppress(*SERVER_DOWN):
                self.sandbox.set_faults(self.dials)
                self._sandbox_pid = pid

    def keep_pooler(self) -> None:
        """Start the pooler again when it was killed; not while the database refuses it, which would hold up the run."""
        if self.pooler is not None and self.pooler.died() and "postgres" not in self.held:
            self.pooler.start()

    def free_routes(self, server: str) -> list[Route]:
        return [route for route in self.proxy.to(server) if route.is_calm]


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


#: The number of read() in /proc/PID/syscall.
READ = "63" if os.uname().machine == "aarch64" else "0"


def is_busy(pid: int) -> bool:
    """Whether a pool process has a task: one that has none is blocked in reading its pipe.

    /proc/PID/syscall names the system call and its arguments; the first argument of read() is the file descriptor. Of
    another call it is something else: the 1 of a sleep is no pipe.
    """
    try:
        call, *arguments = Path(f"/proc/{pid}/syscall").read_text().split()
        if call != READ:
            return True  # at something else, or "running"
        return not os.readlink(f"/proc/{pid}/fd/{int(arguments[0], 16)}").startswith("pipe:")
    except (OSError, ValueError):
        return False


def kill(pid: int, signum: int = signal.SIGKILL) -> bool:
    """Signal a process; False when it is gone. A pid of 0 (a program that is just down) would be our own group."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return False
    return True


def address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def through(url: str, port: int) -> str:
    """The same URL by way of a local port."""
    parts = urlsplit(url)
    credentials, at, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{credentials}{at}127.0.0.1:{port}").geturl()
