"""A private RabbitMQ server: Debian's, or the one on PATH. For the tests and for runs with `BROKER=rabbitmq`."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import amqp

from lab.stack import processes
from lab.stack.errors import StackError
from lab.stack.server import Server

NAME = "holdfast"  # of the user and of the virtual host
#: Erlang loads some hundred modules and makes its tables: 6 s alone, much more while others compute.
START_TIMEOUT_S = 120.0

# Debian's program on PATH changes to a user and directories of its own; the script that it calls does not.
DEBIAN = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")

# `localhost` from this file and from nowhere else: no resolver process to be left behind.
INETRC = '{host, {127,0,0,1}, ["localhost"]}.\n{lookup, [file]}.\n'


def find_server() -> Path:
    """The rabbitmq-server program; StackError that names the remedy when there is none."""
    candidates = [DEBIAN] if DEBIAN.exists() else []
    candidates += [Path(path) for path in [shutil.which("rabbitmq-server")] if path]
    if not candidates or shutil.which("epmd") is None:
        raise StackError(
            "no RabbitMQ server: `apt-get install rabbitmq-server`, or put it and Erlang's epmd on PATH"
        )
    return candidates[0]


class RabbitMQ(Server):
    """One RabbitMQ node with its data in `directory`, on free loopback ports, behind a password.

    Node name, cookie, ports and Erlang's port mapper (epmd) are its own, so that it meets no other node of the machine
    and leaves nothing behind. `durable=False` is for tests: it is stopped by force, which is quicker.
    """

    PROGRAM = "RabbitMQ"
    PORT_TRIES = 3
    PORT_IS_TAKEN = ("eaddrinuse", 20_000)

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
        super().__init__(directory.resolve(), log=log, env=env, port=port)
        self.password = password
        self.durable = durable
        self._ports = (0, 0)  # of the distribution and of epmd
        self._epmd: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://{NAME}:{self.password}@127.0.0.1:{self.port}/{NAME}"

    def start(self, *, wipe: bool = False) -> None:
        """Start and wait until it answers; `wipe` forgets all queues and messages first. Raises StackError."""
        server = find_server()
        if wipe:
            shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._start_on_a_port(lambda: self._run(server))

    def stop(self) -> None:
        if self._process is not None:
            processes.stop(self._process, [(signal.SIGTERM, 30.0)] if self.durable else [])
            self._process = None
        if self._epmd is not None:
            processes.stop(self._epmd, [])
            self._epmd = None

    def kill(self) -> None:
        super().kill()
        self.stop()

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl`; returns what it prints. Takes a second or two: Erlang starts anew each time."""
        program = find_server().with_name("rabbitmqctl")
        done = subprocess.run(
            [program, "--quiet", *arguments],
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise StackError(f"rabbitmqctl {' '.join(arguments)}: {' '.join(done.stderr.split())}")
        return done.stdout

    def _run(self, server: Path) -> None:
        self._ports = (processes.free_port(), processes.free_port())
        self._configure()
        self._epmd = processes.start(
            [str(shutil.which("epmd")), "-address", "127.0.0.1", "-port", str(self._ports[1])],
            log=self.log,
            cwd=self.directory,
            env=self._environment(),
            parent_death_signal=signal.SIGKILL,
        )
        self._process = processes.start(
            [server, "-noinput"],
            log=self.log,
            cwd=self.directory,
            env=self._environment(),
            parent_death_signal=signal.SIGTERM,
        )
        processes.wait_until_ready(
            self._process, self._answers, name=self.PROGRAM, log=self.log, seconds=START_TIMEOUT_S
        )

    def _environment(self) -> dict[str, str]:
        node = hashlib.sha256(str(self.directory).encode()).hexdigest()[:12]
        return {
            **{
                name: value for name, value in self._env.items() if not name.startswith(("RABBITMQ_", "ERL_"))
            },
            "HOME": str(self.directory),  # for the Erlang cookie
            "RABBITMQ_NODENAME": f"{NAME}-{node}@localhost",
            "RABBITMQ_DIST_PORT": str(self._ports[0]),
            "ERL_EPMD_PORT": str(self._ports[1]),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_INETRC": str(self.directory / "inetrc"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,  # the system's may name another node
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.directory / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.directory / "generated"),
            "RABBITMQ_PID_FILE": str(self.directory / "pid"),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "data"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            # Makes the script replace itself by the server. Otherwise it waits beside it, and a SIGKILL that is
            # meant for the server ends the script only.
            "RABBITMQ_ALLOW_INPUT": "1",
        }

    def _configure(self) -> None:
        (self.directory / "inetrc").write_text(INETRC)
        (self.directory / "enabled_plugins").write_text("[].\n")
        lines = [
            f"listeners.tcp.1 = 127.0.0.1:{self.port}",
            f"default_user = {NAME}",
            f"default_pass = {self.password}",
            f"default_vhost = {NAME}",
            "log.console = true",
            "log.console.level = warning",
            "log.file = false",
        ]
        path = self.directory / "rabbitmq.conf"
        with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write("\n".join(lines) + "\n")

    def _answers(self) -> bool:
        # Not before the port is open: the client would warn of each refusal.
        with (
            contextlib.suppress(OSError, amqp.AMQPError),
            socket.create_connection(("127.0.0.1", self.port), timeout=1),
            amqp.Connection(
                f"127.0.0.1:{self.port}",
                userid=NAME,
                password=self.password,
                virtual_host=NAME,
                connect_timeout=5,
            ),
        ):
            return True
        return False
