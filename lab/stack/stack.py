"""PostgreSQL and Redis together with every setting that the processes of Holdfast need to use them."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.stack import processes
from lab.stack.leftovers import end_leftovers
from lab.stack.postgres import Postgres
from lab.stack.redis import Redis
from lab.stack.state import Lock, load_secrets, read_pairs, write_pairs

ROOT = Path(__file__).resolve().parent.parent.parent
VAR = ROOT / "var"
STACK_ENV = VAR / "stack.env"

SERVERS = ("DATABASE_URL", "BROKER_URL", "REDIS_URL")


class Stack:
    """The embedded servers of one directory.

    ``start`` promises: the servers answer, ``environment`` holds every setting, and nothing of a previous run that was
    killed is left. ``stop`` promises: no process of this stack is left, and the data is on disk. A server whose URL is
    in the environment is used as it is and not started. Both raise StackError with one line that says what to do.

    ``directory`` holds the data; ``owner`` is the directory that only one stack may use at a time (they differ for the
    demo, which keeps its data apart but shares var/ and its logs with ``make up``: never both at once). ``env_file`` is
    where other terminals find the settings; None writes none. ``durable=False`` trades safety for speed, for tests.
    ``fresh=True`` erases the data of earlier runs first, and logs too. ``logs`` is where the servers' logs go, if not
    into the directory.
    """

    def __init__(
        self,
        directory: Path = VAR,
        *,
        title: str,
        owner: Path | None = None,
        env_file: Path | None = STACK_ENV,
        durable: bool = True,
        fresh: bool = False,
        logs: Path | None = None,
    ):
        self.directory = directory.resolve()
        self.owner = (owner or directory).resolve()
        self.title = title
        self.environment: dict[str, str] = {}
        self._lock = Lock(self.owner / "lock")
        self._env_file = env_file
        self._durable = durable
        self._fresh = fresh
        self._logs = logs or self.directory / "log"
        self._postgres: Postgres | None = None
        self._redis: Redis | None = None

    def start(self) -> None:
        self._lock.take(self.title)
        try:
            end_leftovers(owner=self.owner, homes=[self._postgres_home()])
            if self._fresh:
                self.erase()
                shutil.rmtree(self._logs, ignore_errors=True)
            self._start_servers()
            self._write_environment()
        except BaseException:
            self.stop()
            raise

    def _start_servers(self) -> None:
        logs = self._logs
        logs.mkdir(parents=True, exist_ok=True)
        secrets = load_secrets(self.directory / "secrets.env")
        # The ports of the last run are taken again if they are free: addresses that the database remembers (webhook
        # subscriptions of the demo customers) stay right.
        ports = {name: int(port) for name, port in read_pairs(self.directory / "ports.env").items()}
        urls = {name: os.environ[name] for name in SERVERS if os.environ.get(name)}
        marked = {**os.environ, processes.OWNER: str(self.owner)}
        if "DATABASE_URL" not in urls:
            self._postgres = Postgres(
                self.directory / "postgres",
                password=secrets["POSTGRES_PASSWORD"],
                log=logs / "postgres.log",
                env=marked,
                durable=self._durable,
                throwaway=self._fresh,
                port=ports.get("POSTGRES", 0),
            )
            self._postgres.start()
            ports["POSTGRES"] = self._postgres.port
            urls["DATABASE_URL"] = self._postgres.url
        if "BROKER_URL" not in urls or "REDIS_URL" not in urls:
            self._redis = Redis(
                self.directory / "redis",
                password=secrets["REDIS_PASSWORD"],
                log=logs / "redis.log",
                env=marked,
                durable=self._durable,
                port=ports.get("REDIS", 0),
            )
            self._redis.start()
            ports["REDIS"] = self._redis.port
            # Two databases, so that wiping the broker in an experiment does not wipe locks and cache.
            urls.setdefault("BROKER_URL", self._redis.url(0))
            urls.setdefault("REDIS_URL", self._redis.url(1))
        for sandbox_port in ("SANDBOX_PORT", "SANDBOX_SMTP_PORT"):
            ports[sandbox_port] = processes.free_port(ports.get(sandbox_port, 0))
        write_pairs(
            self.directory / "ports.env",
            {name: str(port) for name, port in ports.items()},
            title="The ports of the last run.",
        )
        self.environment = {**urls, **_given_or(secrets | _outside_world(ports))}

    def watch(self) -> None:
        """Start again, on the same port and data, a server that somebody killed. To be called now and then."""
        for server in (self._postgres, self._redis):
            if server is not None and server.died():
                # A killed postmaster leaves backends that still use the data.
                end_leftovers(homes=[server.home().resolve()])
                server.start()

    def update_environment(self, **settings: str) -> None:
        """Add settings for the processes of this stack and for other terminals."""
        self.environment.update(settings)
        self._write_environment()

    def process_environment(self) -> dict[str, str]:
        """The whole environment for a process of this stack, the mark of its owner included."""
        return {**os.environ, **self.environment, processes.OWNER: str(self.owner)}

    def stop(self) -> None:
        """Stop the servers, and withdraw the settings: nothing should connect to servers that are gone.

        Then end every other process that carries this stack's mark. A signal may have interrupted this process after
        it had started one and before it had noted which: only the mark tells of that one.
        """
        if self._env_file is not None and self.environment:
            self._env_file.unlink(missing_ok=True)
        self.environment = {}
        with contextlib.ExitStack() as closing:
            # Runs in reverse, each even if another fails: Redis, PostgreSQL, what else there is, then the lock.
            closing.callback(self._lock.release)
            # While another stack has the lock, what carries the mark of this directory is that one's.
            if self._lock.is_taken:
                closing.callback(end_leftovers, self.owner)
            if self._postgres is not None:
                closing.callback(self._postgres.stop)
            if self._redis is not None:
                closing.callback(self._redis.stop)
        self._postgres = self._redis = None

    def erase(self) -> None:
        """Remove all data of a stack whose servers do not run."""
        shutil.rmtree(self._postgres_home(), ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _postgres_home(self) -> Path:
        directory = self.directory / "postgres"
        return Postgres(directory, password="", log=Path(os.devnull), env={}).home().resolve()

    def _write_environment(self) -> None:
        if self._env_file is not None:
            write_pairs(self._env_file, self.environment, title=f"Written by `{self.title}` while it runs.")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _outside_world(ports: dict[str, int]) -> dict[str, str]:
    """Where the sandbox listens, once somebody starts it: chosen here so that all settings agree."""
    sandbox = f"http://127.0.0.1:{ports['SANDBOX_PORT']}"
    return {
        "STRIPE_API_BASE": sandbox,
        "WAREHOUSE_URL": f"{sandbox}/warehouse",
        "CRM_URL": f"{sandbox}/crm",
        "EMAIL_URL": f"smtp://127.0.0.1:{ports['SANDBOX_SMTP_PORT']}",
        "WEBHOOKS_ALLOW_PRIVATE": "1",
        "SANDBOX_PORT": str(ports["SANDBOX_PORT"]),
        "SANDBOX_SMTP_PORT": str(ports["SANDBOX_SMTP_PORT"]),
    }


def _given_or(values: dict[str, str]) -> dict[str, str]:
    """The same names, with what the environment already says in place of our value."""
    return {
        name: os.environ.get(name) or value
        for name, value in values.items()
        if not name.endswith("_PASSWORD")
    }
