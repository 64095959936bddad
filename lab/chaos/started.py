"""What a run starts besides the stack: RabbitMQ, a pooler, and the processes with routes of their own to their servers."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

import psycopg2

from lab.chaos.faults.servers import NO_POOLER
from lab.chaos.proxy import FaultProxy
from lab.chaos.system import address, through
from lab.fleet import Fleet
from lab.stack import Stack
from lab.stack.pgbouncer import PgBouncer
from lab.stack.processes import OWNER
from lab.stack.rabbitmq import RabbitMQ

#: Programs that reach the database through a pooler in transaction mode, beside others of their kind that do not.
POOLED = ("worker-b", "relay-b")
TIMEOUTS = {"lock_timeout": "10s", "idle_in_transaction_session_timeout": "30s"}


def rabbitmq(home: Path) -> RabbitMQ:
    return RabbitMQ(
        home / "rabbitmq",
        password=secrets.token_hex(16),
        log=home / "rabbitmq.log",
        env={**os.environ, OWNER: str(home.resolve())},
    )


def pooler(home: Path, stack: Stack) -> PgBouncer | None:
    """A pooler before the stack's database, None where this machine has none."""
    if NO_POOLER:
        return None
    environment = stack.process_environment()
    url = environment["DATABASE_URL"]
    with contextlib.closing(psycopg2.connect(url)) as session, session, session.cursor() as cursor:
        # What a pooler drops of each connection's own options; without them no process starts behind it.
        for name, value in TIMEOUTS.items():
            cursor.execute(f"ALTER ROLE CURRENT_USER SET {name} = '{value}'")
    started = PgBouncer(home / "pgbouncer", database_url=url, log=home / "pgbouncer.log", env=environment)
    started.start()
    return started


def fleet(
    stack: Stack,
    proxy: FaultProxy,
    sink: Callable[[str, str], None],
    procfile: Path,
    pooler: PgBouncer | None,
) -> Fleet:
    """The processes, each with routes of its own to its servers."""
    environment = stack.process_environment()
    fleet = Fleet(environment, sink, procfile=procfile)
    for name in fleet.names:
        if name == "sandbox":
            continue
        url = pooler.url() if pooler is not None and name in POOLED else environment["DATABASE_URL"]
        database = proxy.add(name, "postgres", address(url))
        broker = redis = proxy.add(name, "broker", address(environment["BROKER_URL"]))
        if address(environment["REDIS_URL"]) != address(environment["BROKER_URL"]):
            redis = proxy.add(name, "redis", address(environment["REDIS_URL"]))
        fleet.set_variables(
            name,
            {
                "DATABASE_URL": through(url, database),
                "BROKER_URL": through(environment["BROKER_URL"], broker),
                "REDIS_URL": through(environment["REDIS_URL"], redis),
            },
        )
    return fleet
