"""A Redis master with a replica, and a sentinel that fails over from one to the other."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from lab.stack import processes
from lab.stack.redis import Redis, find_server
from tests.support.brokers import private_directory
from tests.support.processes import await_

PASSWORD = "test"
MASTER_NAME = "orders"


@dataclass
class Watched:
    """Two servers and the address at which a client asks which of them is the master."""

    url: str
    master: Redis
    replica: Redis


@contextmanager
def watched_redis(sentinel_password: str = "") -> Iterator[Watched]:
    """`sentinel_password`: of the sentinel itself; it then refuses clients without it."""
    with private_directory() as directory, ExitStack() as stopping:
        master, replica = (_server(directory, name, stopping) for name in ("master", "replica"))
        with client_of(replica) as client:
            client.config_set("masterauth", PASSWORD)
            client.replicaof("127.0.0.1", master.port)
            await_(lambda: client.info("replication")["master_link_status"] == "up", "the replica follows")
        port = _start_sentinel(directory, master, stopping, sentinel_password)
        yield Watched(f"sentinel://:{PASSWORD}@127.0.0.1:{port}/0", master, replica)


def client_of(server: Redis) -> redis.Redis:
    return redis.Redis.from_url(server.url(0), decode_responses=True)


def _server(directory: Path, name: str, stopping: ExitStack) -> Redis:
    server = Redis(
        directory / name,
        password=PASSWORD,
        log=directory / f"{name}.log",
        env=dict(os.environ),
        durable=False,
    )
    server.start()
    stopping.callback(server.stop)
    return server


def _start_sentinel(directory: Path, master: Redis, stopping: ExitStack, password: str) -> int:
    port = processes.free_port()
    configuration = directory / "sentinel.conf"  # the sentinel writes to it
    configuration.write_text(
        f"bind 127.0.0.1\nport {port}\ndir {directory}\n"
        f"sentinel monitor {MASTER_NAME} 127.0.0.1 {master.port} 1\n"
        f"sentinel auth-pass {MASTER_NAME} {PASSWORD}\n"
        f"sentinel down-after-milliseconds {MASTER_NAME} 500\n"
        f"sentinel failover-timeout {MASTER_NAME} 3000\n" + (f"requirepass {password}\n" if password else "")
    )
    process: subprocess.Popen[bytes] = processes.start(
        [find_server(), configuration, "--sentinel"],
        log=directory / "sentinel.log",
        cwd=directory,
        env=dict(os.environ),
        parent_death_signal=signal.SIGTERM,
    )
    stopping.callback(processes.stop, process, [(signal.SIGTERM, 5.0)])

    def knows_both() -> bool:
        try:
            with redis.Redis(port=port, password=password or None, decode_responses=True) as sentinel:
                return len(sentinel.sentinel_slaves(MASTER_NAME)) == 1
        except redis.RedisError:
            return False

    await_(knows_both, "the sentinel knows the replica")
    return port
