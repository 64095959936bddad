"""A subject that runs: its processes and its database, with the outside world beside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import redis
from django.db import DatabaseError, connection

from lab.bench.shop import roles
from lab.bench.shop.clients import Clients
from lab.bench.shop.effects import Effects
from lab.bench.shop.records import Asked
from lab.bench.shop.subjects import Subject
from lab.bench.world import World
from lab.collect import Sandbox
from lab.fleet import Fleet, files
from lab.shoppers import SKUS
from lab.stack.processes import free_port
from lab.stillness import Stillness
from lab.up import wait_until_ready

INSIDE = Path(__file__).parent / "inside"
TURN = "bench_turn"
#: Clients of the API that each wait for an answer before they place the next order.
CLIENTS = 4
#: Placed before anything is measured: every process has its connections and has run each of its tasks.
WARM_UP = 16
MANY_SKUS = 100
#: Nothing has moved for this long: it will not. Longer than any first retry.
STILL_S = 60.0
#: How often the effects are looked for: seldom enough to cost the servers little, often enough for a batch of many seconds.
LOOK_EVERY_S = 0.1


@dataclass(frozen=True)
class Seeded:
    """A subject whose tables and goods stand in a database of its own, which each turn copies."""

    subject: Subject
    database: str
    api_key: str
    secrets: Mapping[str, str]


@dataclass(frozen=True)
class Batch:
    """What some orders took, from the first POST to the last effect."""

    orders: int
    seconds: float
    #: Milliseconds an order, by role.
    cpu_ms: Mapping[str, float]
    #: Statements and commits an order, by what asked: a task, a request, or a role.
    asked: Mapping[str, tuple[float, float]]


@dataclass
class Shop:
    """A subject's running processes, and what they write down."""

    subject: Subject
    clients: Clients
    effects: Effects
    #: The root of each role's processes.
    pids: Mapping[str, int]
    #: Raises RuntimeError when a process has ended.
    watch: Callable[[], None]
    asked: Asked
    server_log: Path
    placed: int = 0

    def batch(self, orders: int, skus: Sequence[str] = SKUS, *, threads: int = CLIENTS) -> Batch:
        """Place the orders and wait until each has had all its effects."""
        self.asked.forget()
        before, begun = roles.cpu_s(self.pids), time.monotonic()
        self.place(orders, skus, threads=threads)
        self.wait()
        seconds, after = time.monotonic() - begun, roles.cpu_s(self.pids)
        return Batch(
            orders,
            seconds,
            {name: (after[name] - before[name]) * 1000 / orders for name in self.pids},
            {
                name: (statements / orders, commits / orders)
                for name, (statements, commits) in self.asked.read().items()
            },
        )

    def place(
        self, orders: int, skus: Sequence[str] = SKUS, *, threads: int, per_second: float | None = None
    ) -> list[float]:
        self.placed += orders
        return self.clients.place(orders, skus, threads=threads, per_second=per_second)

    def wait(self, *, every_s: float = LOOK_EVERY_S) -> None:
        """Wait until every order has had all its effects. Raises RuntimeError that says what has not happened."""
        stillness = Stillness(STILL_S)
        while missing := self.effects.missing(self.placed):
            self.watch()
            if stillness.hangs(missing, waiting=False):
                raise RuntimeError(f"{self.subject.name} hangs: {missing}")
            time.sleep(every_s)


@contextmanager
def seeded(world: World, subjects: Sequence[Subject]) -> Iterator[list[Seeded]]:
    """Each subject's tables and goods, in a database that is dropped when the block ends."""
    names = [f"bench_subject_{number}" for number in range(len(subjects))]
    shutil.rmtree(world.directory / "shop", ignore_errors=True)  # logs and ledger of an earlier run
    sandbox = world.environment["STRIPE_API_BASE"]
    try:
        found = []
        for subject, name in zip(subjects, names, strict=True):
            _create(name)
            done = subprocess.run(
                [sys.executable, "-m", "bench_seed"],
                cwd=subject.root,
                env={
                    **_environment(world, subject, name),
                    "BENCH_WEBHOOKS": f"{sandbox}/merchants/{{customer_id}}/webhooks",
                    "BENCH_SKUS": str(MANY_SKUS),
                },
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                last = (done.stderr.strip() or "no output").splitlines()[-1]
                raise RuntimeError(f"{subject.name}: its database cannot be prepared: {last}")
            found.append(Seeded(subject, name, **json.loads(done.stdout.splitlines()[-1])))
        yield found
    finally:
        for name in names:
            _drop(name)


@contextmanager
def running(
    world: World,
    shop: Seeded,
    *,
    seed: int,
    env: Mapping[str, str] | None = None,
    log_lock_waits: bool = False,
) -> Iterator[Shop]:
    """The subject's processes on a fresh copy of its database, warm, until the block ends.

    With one ``seed`` all subjects get the same orders. ``log_lock_waits``: for `Shop.product_lock_waits`.
    """
    with redis.Redis.from_url(os.environ["BROKER_URL"]) as client:
        client.flushall()
        servers = {"redis": int(client.info("server")["process_id"])}
    _create(TURN, template=shop.database)
    with connection.cursor() as cursor:
        if log_lock_waits:
            # Each of 1 ms or more, with the statement that waited.
            cursor.execute(f"ALTER DATABASE {TURN} SET log_lock_waits = on")
            cursor.execute(f"ALTER DATABASE {TURN} SET deadlock_timeout = '1ms'")
        cursor.execute("CHECKPOINT")
        cursor.execute("SELECT pg_backend_pid()")
        servers["postgres"] = roles.parent(int(cursor.fetchone()[0]))
    directory = world.directory / "shop"
    directory.mkdir(exist_ok=True)
    asked, procfile, port = directory / "asked", directory / "Procfile", free_port()
    asked.write_text("")
    shutil.rmtree(ledger := directory / "sandbox", ignore_errors=True)
    procfile.write_text(shop.subject.procfile())
    environment = _environment(world, shop.subject, TURN) | {
        "PORT": str(port),
        "BENCH_COUNTS": str(asked),
        **(env or {}),
    }
    url, address = f"http://127.0.0.1:{port}", world.environment["STRIPE_API_BASE"]
    outside = ["-m", "lab.sandbox", "--port", str(urlsplit(address).port), "--app-url", url]
    outside += ["--smtp-port", environment["SANDBOX_SMTP_PORT"], "--data", str(ledger)]
    fleet = Fleet(environment, files(directory / "log"), procfile=procfile, root=shop.subject.root)
    for name in fleet.names:
        fleet.set_variables(name, {"BENCH_ROLE": name})
    try:
        with world.process(outside, ready="sandbox at") as sandbox:
            try:
                fleet.start()
                wait_until_ready(port, watch=fleet.watch)
                for customer_id, secret in shop.secrets.items():
                    Sandbox(address).introduce_merchant(int(customer_id), secret)
                pids = {name: fleet.pid(name) or 0 for name in fleet.names}
                with Effects(_database_url(world, TURN), address) as effects:
                    running_shop = Shop(
                        shop.subject,
                        Clients(url, shop.api_key, seed=seed),
                        effects,
                        pids={**pids, **servers, "sandbox": sandbox.popen.pid},
                        watch=lambda: _watch(fleet, pids, directory / "log"),
                        asked=Asked(asked),
                        server_log=world.directory / "stack" / "log" / "postgres.log",
                    )
                    running_shop.batch(WARM_UP)
                    yield running_shop
                    effects.check_ledgers(running_shop.placed)
            finally:
                fleet.stop()
    finally:
        _drop(TURN)


def _watch(fleet: Fleet, pids: Mapping[str, int], logs: Path) -> None:
    fleet.watch()
    if ended := [name for name, pid in pids.items() if fleet.pid(name) != pid]:
        raise RuntimeError(f"{', '.join(ended)} ended while it was measured: see {logs}")


def _environment(world: World, subject: Subject, database: str) -> dict[str, str]:
    return {
        **world.environment,
        "DATABASE_URL": _database_url(world, database),
        "DJANGO_SETTINGS_MODULE": "bench_settings",
        "BENCH_SETTINGS": subject.settings,
        "PYTHONPATH": str(INSIDE),
    }


def _database_url(world: World, database: str) -> str:
    return urlsplit(world.environment["DATABASE_URL"])._replace(path=f"/{database}").geturl()


def _create(name: str, *, template: str = "template1") -> None:
    _drop(name)
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    except DatabaseError as error:
        raise RuntimeError(
            f"cannot create a database on this server: {' '.join(str(error).split())}"
        ) from error


def _drop(name: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
