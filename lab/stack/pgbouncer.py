"""A private PgBouncer in transaction mode before a PostgreSQL server. For the tests and for chaos runs with a pooler."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import psycopg2

from lab.stack import processes
from lab.stack.errors import StackError
from lab.stack.server import Server

# Debian keeps it off the PATH of ordinary users.
DEBIAN = Path("/usr/sbin/pgbouncer")


def find_pooler() -> Path:
    """The pgbouncer program; StackError that names the remedy when there is none."""
    found = shutil.which("pgbouncer")
    if found is None and not DEBIAN.exists():
        raise StackError("no PgBouncer: `apt-get install pgbouncer`, or put it on PATH")
    return Path(found) if found else DEBIAN


class PgBouncer(Server):
    """One PgBouncer on a free loopback port, before the server of ``database_url``, with that URL's user and password.

    Every database of the server can be reached through it. ``pool_size`` server sessions of a database are shared by
    all clients: with fewer of them than clients, the transactions of one client run in different sessions. ``settings``
    are added to its configuration, or replace what is there. Started by root it
    runs as ``nobody``.
    """

    PROGRAM = "PgBouncer"

    def __init__(
        self,
        directory: Path,
        *,
        database_url: str,
        log: Path,
        env: dict[str, str],
        pool_size: int = 3,
        port: int = 0,
        settings: dict[str, str] | None = None,
    ):
        super().__init__(directory.resolve(), log=log, env=env, port=port)
        self._server = urlsplit(database_url)
        self._settings = {"default_pool_size": str(pool_size)} | (settings or {})
        # It refuses to run as root. If it changed its user itself, the kernel would forget the signal that ends it when its
        # parent is gone.
        nobody = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._user = None if nobody is None else (nobody.pw_uid, nobody.pw_gid)

    def url(self, database: str = "") -> str:
        """The address through the pooler, of the server URL's own database if no other is named."""
        login = self._server.netloc.rpartition("@")[0]
        netloc = f"{login}@127.0.0.1:{self.port}"
        return urlunsplit(("postgres", netloc, f"/{database}" if database else self._server.path, "", ""))

    def start(self) -> None:
        """Start and wait until a client reaches the server through it. Raises StackError."""
        pooler = find_pooler()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._start_on_a_port(lambda: self._run(pooler))

    def _run(self, pooler: Path) -> None:
        self._process = processes.start(
            [pooler, self._configure()],
            user=self._user,
            log=self.log,
            cwd=self.directory,
            env=self._env,
            parent_death_signal=signal.SIGTERM,
        )
        processes.wait_until_ready(self._process, self._answers, name=self.PROGRAM, log=self.log)

    def stop(self) -> None:
        if self._process is not None:
            # SIGTERM ends it at once, with the connections of all clients.
            processes.stop(self._process, [(signal.SIGTERM, 5.0)])
            self._process = None

    def control(self, command: str) -> None:
        """Run a command of its administration console, such as RECONNECT: new server sessions from now on."""
        with contextlib.closing(psycopg2.connect(self.url("pgbouncer"), connect_timeout=5)) as console:
            console.autocommit = True
            console.cursor().execute(command)

    def _configure(self) -> str:
        """Write its files; returns the name of the one with its settings.

        By their names in its working directory: that user may not be able to pass through the directories above.
        """
        user, password = unquote(self._server.username or ""), unquote(self._server.password or "")
        files = {"users.txt": f"{_quoted(user)} {_quoted(password)}\n"}
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": "users.txt",
            "admin_users": user,
            "pool_mode": "transaction",
            "max_client_conn": "500",
            # What PgBouncer cannot keep for each client; it refuses a client that asks for one that is not listed.
            "ignore_startup_parameters": "extra_float_digits,options",
            # As docs/operations.md asks for: waits for a session, or for a server that is down, end before a task does.
            "query_wait_timeout": "10",
            "server_login_retry": "1",
            "log_connections": "0",
            "log_disconnections": "0",
            "log_stats": "0",
        }
        lines = [
            "[databases]",
            f"* = host={self._server.hostname} port={self._server.port or 5432}",
            "[pgbouncer]",
        ]
        lines += [f"{name} = {value}" for name, value in (settings | self._settings).items()]
        files["pgbouncer.ini"] = "\n".join(lines) + "\n"
        for name, text in files.items():
            _write(self.directory / name, text)
        if self._user is not None:
            for path in (self.directory, *(self.directory / name for name in files)):
                os.chown(path, *self._user)
        return "pgbouncer.ini"

    def _answers(self) -> bool:
        try:
            psycopg2.connect(self.url(), connect_timeout=5).close()
        except psycopg2.OperationalError:
            return False
        return True


def _write(path: Path, text: str) -> None:
    with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
