"""PostgreSQL and Redis together with every setting that the processes of Holdfast need to use them."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.stack import processes
from lab.stack.postgres import Postgres
from lab.stack.redis import Redis
from lab.stack.state import Lock, load_secrets, write_pairs

ROOT = Path(__file__).resolve().parent.parent.parent
VAR = ROOT / "var"
STACK_ENV = VAR / "stack.env"

SERVERS = ("DATABASE_URL", "BROKER_URL", "REDIS_URL")


class Stack:
    """The embedded servers of one directory.

    ``start`` promises: the servers answer, ``environment`` holds every setting, and nothing of a previous run that was
    killed is left. ``stop`` promises: no process of this stack is left, and the data is on disk. A server whose URL is
    in the environment is used as it is and not started. Both raise StackError with one line that says what to do.

    ``directory`` holds the data, ``lock_directory`` what must be used by one stack at a time (they differ for the demo,
    which keeps its data apart but shares var/ with ``make up``). ``env_file`` is where other terminals find the
    settings; None writes none. ``durable=False`` trades safety for speed, for tests.
    """

    def __init__(
        self,
        directory: Path = VAR,
        *,
        title: str = "manage.py stack",
        lock_directory: Path | None = None,
        env_file: Path | None = STACK_ENV,
        durable: bool = True,
    ):
        self.directory = directory.resolve()
        self.environment: dict[str, str] = {}
        self.title = title
        self._lock = Lock((lock_directory or self.directory) / "lock")
        self._env_file = env_file
        self._durable = durable
        self._postgres: Postgres | None = None
        self._redis: Redis | None = None

    def start(self) -> None:
        logs = self.directory / "log"
        logs.mkdir(parents=True, exist_ok=True)
        self._lock.take(self.title)
        try:
            processes.end_leftovers(self._places())
            self._start(logs)
        except BaseException:
            self.stop()
            raise

    def _start(self, logs: Path) -> None:
        secrets = load_secrets(self.directory / "secrets.env")
        server_env = {**os.environ, processes.OWNER: str(self.directory)}
        urls = {name: os.environ[name] for name in SERVERS if os.environ.get(name)}
        if "DATABASE_URL" not in urls:
            self._postgres = Postgres(
                self.directory / "postgres",
                password=secrets["POSTGRES_PASSWORD"],
                log=logs / "postgres.log",
                env=server_env,
                durable=self._durable,
            )
            self._postgres.start()
            urls["DATABASE_URL"] = self._postgres.url
        if "BROKER_URL" not in urls or "REDIS_URL" not in urls:
            self._redis = Redis(
                self.directory / "redis",
                password=secrets["REDIS_PASSWORD"],
                log=logs / "redis.log",
                env=server_env,
                durable=self._durable,
            )
            self._redis.start()
            # Two databases, so that wiping the broker in an experiment does not wipe locks and cache.
            urls.setdefault("BROKER_URL", self._redis.url(0))
            urls.setdefault("REDIS_URL", self._redis.url(1))
        self.environment = {
            **{name: urls[name] for name in SERVERS},
            **{name: os.environ.get(name) or secrets[name] for name in ("SECRET_KEY", "STRIPE_API_KEY")},
            "STRIPE_WEBHOOK_SECRET": os.environ.get("STRIPE_WEBHOOK_SECRET") or secrets["STRIPE_WEBHOOK_SECRET"],
            **self._outside_world(),
        }
        self._write_environment()

    def _outside_world(self) -> dict[str, str]:
        """Where the sandbox listens, once somebody starts it: its ports are chosen here so that all settings agree."""
        http, smtp = processes.free_port(), processes.free_port()
        sandbox = f"http://127.0.0.1:{http}"
        addresses = {
            "STRIPE_API_BASE": sandbox,
            "WAREHOUSE_URL": f"{sandbox}/warehouse",
            "CRM_URL": f"{sandbox}/crm",
            "EMAIL_URL": f"smtp://127.0.0.1:{smtp}",
            "WEBHOOKS_ALLOW_PRIVATE": "1",
        }
        chosen = {name: os.environ.get(name) or value for name, value in addresses.items()}
        return {**chosen, "SANDBOX_PORT": str(http), "SANDBOX_SMTP_PORT": str(smtp)}

    def update_environment(self, **settings: str) -> None:
        """Add settings for the processes of this stack and for other terminals."""
        self.environment.update(settings)
        self._write_environment()

    def process_environment(self) -> dict[str, str]:
        """The whole environment for a process of this stack, the mark of its owner included."""
        return {**os.environ, **self.environment, processes.OWNER: str(self.directory)}

    def stop(self) -> None:
        """Stop what runs, and withdraw the settings: nobody should be sent to servers that are gone."""
        if self._env_file is not None and self.environment:
            self._env_file.unlink(missing_ok=True)
        self.environment = {}
        with contextlib.ExitStack() as closing:
            # Run in reverse, each even if another fails: Redis, PostgreSQL, then the lock.
            closing.callback(self._lock.release)
            if self._postgres is not None:
                closing.callback(self._postgres.stop)
            if self._redis is not None:
                closing.callback(self._redis.stop)
        self._postgres = self._redis = None

    def erase(self) -> None:
        """Remove all data of a stack that is not running."""
        directory = self.directory / "postgres"
        Postgres(directory, password="", log=Path(os.devnull), env={}).erase()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _places(self) -> list[Path]:
        postgres = Postgres(self.directory / "postgres", password="", log=Path(os.devnull), env={})
        return [self.directory, postgres.home().resolve()]

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
