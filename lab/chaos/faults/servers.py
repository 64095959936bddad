"""Faults of the servers themselves: killed, wiped, a second of the disk lost, transactions ended, no connection left."""

from __future__ import annotations

import contextlib
import os
import random
import threading
from pathlib import Path
from typing import Any

import psycopg2

from lab.chaos.brokers import RedisBroker
from lab.chaos.faults.kinds import Hit, kind
from lab.chaos.rabbit import RabbitBroker
from lab.chaos.system import System, address, children, kill
from lab.stack.errors import StackError
from lab.stack.pgbouncer import find_pooler

try:
    find_pooler()
    NO_POOLER = ""
except StackError as missing:
    NO_POOLER = str(missing)
ONLY_REDIS = ("redis",)
ONLY_RABBITMQ = ("rabbitmq",)


@kind("kill -9 PostgreSQL", "postgres", kills=True)
def kill_postgres(system: System, dice: random.Random) -> Hit | None:
    open_transactions = len(system.transactions())
    if not open_transactions:
        return None
    [(directory,)] = system.database.rows("SHOW data_directory")
    postmaster = int((Path(directory) / "postmaster.pid").read_text().split()[0])
    for pid in [postmaster, *children(postmaster)]:
        kill(pid)
    return Hit(open_transactions)


@kind("kill -9 PostgreSQL backend", "postgres", kills=True)
def kill_backend(system: System, dice: random.Random) -> Hit | None:
    # The server answers the death of one backend by ending all of them and recovering from its log.
    backends = system.transactions()
    if not backends:
        return None
    kill(dice.choice(backends))
    return Hit(len(backends))


@kind("transaction ended by the server", "postgres")
def terminate_backend(system: System, dice: random.Random) -> Hit | None:
    backends = system.transactions()
    if not backends:
        return None
    ended = system.database.number("SELECT pg_terminate_backend(%s)::int", dice.choice(backends))
    return Hit(ended)


@kind("no database connection left", "postgres")
def exhaust_connections(system: System, dice: random.Random) -> Hit | None:
    if "postgres" in system.held or not system.transactions():
        return None
    held: list[Any] = []
    enough = threading.Event()

    def hold() -> None:
        # Refused is not enough: a process that loses its connection while another one asks leaves a place free.
        while not enough.is_set():
            try:
                held.append(system.database.connect())
            except psycopg2.Error:
                enough.wait(0.02)

    holder = threading.Thread(target=hold, name="connection-hog", daemon=True)
    holder.start()
    routes = system.proxy.to("postgres")
    before = sum(route.opened for route in routes)
    # A process that has a connection needs none: half of them must reconnect.
    for route in routes:
        system.proxy.cut(route, share=0.5, dice=dice)

    def release() -> int:
        enough.set()
        holder.join(5)
        for connection in held:
            with contextlib.suppress(psycopg2.Error):
                connection.close()
        return sum(route.opened for route in routes) - before

    return Hit(0, lasts_s=dice.uniform(3.0, 5.0), places=("postgres",), heal=release)


@kind("kill -9 Redis", "redis", kills=True)
def kill_redis(system: System, dice: random.Random) -> Hit | None:
    return _kill_redis(system, lose=False)


@kind("kill -9 Redis, last second of its disk lost", "redis", kills=True, brokers=ONLY_REDIS)
def kill_redis_and_lose(system: System, dice: random.Random) -> Hit | None:
    return _kill_redis(system, lose=True)


def _kill_redis(system: System, *, lose: bool) -> Hit | None:
    redis = system.redis
    in_flight = system.in_broker() if redis is system.broker else system.running_messages()
    before = system.journal_a_second_ago()
    if not in_flight or (lose and before is None):
        return None
    pid = redis.pid()
    kill(pid)
    note = ""
    if lose and before is not None:
        while _alive(pid):
            pass
        path, size = before
        lost = path.stat().st_size - size
        if lost > 0:
            os.truncate(path, size)
        note = f"{max(0, lost):,} bytes lost"
    return Hit(in_flight, note=note)


def _alive(pid: int) -> bool:
    try:
        # A zombie has closed its files; its parent reaps it at the next watch.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@kind("FLUSHALL", "redis")
def flush(system: System, dice: random.Random) -> Hit | None:
    redis: RedisBroker = system.redis
    in_flight = system.in_broker() if redis is system.broker else system.running_messages()
    if not in_flight:
        return None
    redis.wipe()
    return Hit(in_flight)


@kind("kill -9 RabbitMQ", "rabbitmq", kills=True, brokers=ONLY_RABBITMQ)
def kill_rabbitmq(system: System, dice: random.Random) -> Hit | None:
    assert isinstance(system.broker, RabbitBroker)
    in_flight = system.in_broker()
    if not in_flight:
        return None
    system.broker.kill()
    return Hit(in_flight)


@kind("queues purged", "rabbitmq", brokers=ONLY_RABBITMQ)
def purge(system: System, dice: random.Random) -> Hit | None:
    assert isinstance(system.broker, RabbitBroker)
    return Hit(gone) if (gone := system.broker.purge()) else None


def kill_pooler(system: System, dice: random.Random) -> Hit | None:
    pooler = system.pooler
    if pooler is None or pooler.died() or "postgres" in system.held:
        return None
    routes = [route for route in system.proxy.to("postgres") if route.target == address(pooler.url())]
    waiting = sum(route.awaiting for route in routes)
    if not waiting:
        return None
    pooler.kill()
    return Hit(waiting)


if not NO_POOLER:
    kind("kill -9 PgBouncer", "pooler", kills=True)(kill_pooler)
