"""One chaos run from an empty database to the checked books."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lab.books import Sandbox, shelves_at_start
from lab.chaos.books import read_chaos_books
from lab.chaos.brokers import Broker, RedisBroker
from lab.chaos.clients import Clients
from lab.chaos.director import Director
from lab.chaos.faults import KINDS
from lab.chaos.options import Options
from lab.chaos.proxy import FaultProxy
from lab.chaos.schedule import draw
from lab.chaos.system import AWAY, Database, System, address, through
from lab.chaos.watch import Watch
from lab.fleet import Fleet, files
from lab.invariants import Books
from lab.prepare import configure, introduce_merchants
from lab.stack import Stack, StackError
from lab.stack.processes import free_port
from lab.stack.stack import ROOT, VAR
from lab.up import READY_SECONDS, wait_until_ready

HOME = VAR / "chaos"
TICK_S = 0.02
LINE_S = 5.0

DEPTH_LIMIT, BATCH, RELAYS, SLOTS = 200, 50, 2, 12
#: Limits small enough to be reached, waits short enough for ten minutes to see their ends.
SETTINGS = {
    "DJANGO_SETTINGS_MODULE": "lab.chaos.settings",
    "OUTBOX_DEPTH_LIMIT": str(DEPTH_LIMIT),
    "OUTBOX_BATCH": str(BATCH),
    "OUTBOX_WORKER_TIMEOUT": "4",
    "OUTBOX_MARGIN": "4",
    "RETRY_SCALE": "0.03",
    "DATABASE_CONNECTIONS": "80",
    "WEB_THREADS": "16",
    "LOG_LEVEL": "WARNING",
}
#: Nothing has changed for this long: the run hangs. Longer than the longest wait that is in order, which is the claim
#: of a task with a hard limit of 90 s.
STILL_S = 130.0


@dataclass
class Run:
    """What the report is about."""

    options: Options
    begun_at: float
    director: Director
    watch: Watch
    clients: Clients
    books: Books | None = None
    quiet: bool = False
    seconds: float = 0.0
    replayed: str = ""
    completed_at_s: list[float] = field(default_factory=list)


def run(options: Options, say: Callable[[str], None]) -> Run:
    """Start everything, let the faults strike, heal, replay, collect the books. Raises StackError."""
    os.environ.update(SETTINGS)
    stack = Stack(HOME / "stack", title="make chaos", owner=HOME, env_file=None, fresh=True)
    fleet: Fleet | None = None
    system: System | None = None
    proxy = FaultProxy()
    try:
        stack.start()
        logs = HOME / "log"
        shutil.rmtree(logs, ignore_errors=True)
        logs.mkdir(parents=True)
        port = free_port()
        stack.update_environment(PORT=str(port), SANDBOX_DATA=str(stack.directory / "sandbox"), **SETTINGS)
        api_key = _prepare(stack)
        fleet = _fleet(stack, proxy, files(logs))
        sandbox = Sandbox(stack.environment["STRIPE_API_BASE"])
        system = System(
            fleet=fleet,
            proxy=proxy,
            database=Database(stack.environment["DATABASE_URL"]),
            broker=_broker(stack),
            redis=RedisBroker(stack.environment["REDIS_URL"]),
            sandbox=sandbox,
            clients=Clients(
                f"http://127.0.0.1:{port}",
                api_key,
                orders=options.orders,
                rate=options.rate,
                seed=options.seed,
            ),
        )
        fleet.start()
        wait_until_ready(port, watch=fleet.watch)
        _await_daemons(system)
        fleet.patient = True
        introduce_merchants(sandbox)
        _let_go_of_the_database()
        return _Conductor(options, stack, system, say).conduct()
    finally:
        if system is not None:
            system.clients.stop()
            Director(system, []).heal_all()
        if fleet is not None:
            fleet.stop()
        proxy.close()
        _let_go_of_the_database()
        stack.stop()


def _prepare(stack: Stack) -> str:
    """Tables, demo data and a Bearer key."""
    configure(stack.environment)
    from django.core.management import call_command

    from orders.models import ApiKey
    from orders.seed import seed_demo as seed_orders
    from webhooks.seed import seed_demo as seed_webhooks

    with (HOME / "log" / "prepare.log").open("a") as output:
        call_command("migrate", interactive=False, stdout=output)
    seed_orders()
    seed_webhooks(f"{stack.environment['STRIPE_API_BASE']}/merchants/{{customer_id}}/webhooks")
    return ApiKey.issue("chaos")[1]


def _fleet(stack: Stack, proxy: FaultProxy, sink: Callable[[str, str], None]) -> Fleet:
    """The processes, each with routes of its own to its servers."""
    environment = stack.process_environment()
    procfile = ROOT / "lab" / "chaos" / "Procfile"
    fleet = Fleet(environment, sink, procfile=procfile)
    for name in fleet.names:
        if name == "sandbox":
            continue
        database = proxy.add(name, "postgres", address(environment["DATABASE_URL"]))
        broker = proxy.add(name, "broker", address(environment["BROKER_URL"]))
        fleet.set_variables(
            name,
            {
                "DATABASE_URL": through(environment["DATABASE_URL"], database),
                "BROKER_URL": through(environment["BROKER_URL"], broker),
            },
        )
    return fleet


def _await_daemons(system: System) -> None:
    """Until every worker and relay has said that it is there: faults before that would hit nothing."""
    give_up_at = time.monotonic() + READY_SECONDS
    wanted = (len(system.programs("worker")), len(system.programs("relay")))
    while system.database.rows(
        "SELECT (SELECT count(*) FROM outbox_worker), (SELECT count(*) FROM outbox_relayprocess)"
    ) != [wanted]:
        if time.monotonic() > give_up_at:
            raise StackError(
                f"workers and relays did not start within {READY_SECONDS:.0f} s: see {HOME / 'log'}"
            )
        system.fleet.watch()
        time.sleep(0.1)


def _broker(stack: Stack) -> Broker:
    return RedisBroker(stack.environment["BROKER_URL"])


def _let_go_of_the_database() -> None:
    # The server will be killed under this connection; the next use makes a new one.
    from django.db import connections

    with contextlib.suppress(Exception):
        connections.close_all()


class _Conductor:
    """The phases of a run, all in the main thread: what it starts ends with the thread that started it."""

    def __init__(self, options: Options, stack: Stack, system: System, say: Callable[[str], None]):
        kinds = [kind for kind in KINDS.values() if options.broker in kind.brokers]
        self._options = options
        self._stack = stack
        self._system = system
        self._say = say
        self._line_at = 0.0
        self._at_start = shelves_at_start()
        director = Director(system, draw(kinds, seconds=options.seconds, seed=options.seed))
        watch = Watch(system, depth_limit=DEPTH_LIMIT, relays=RELAYS, batch=BATCH, slots=SLOTS)
        self.run = Run(options, time.time(), director, watch, system.clients)

    def conduct(self) -> Run:
        begun = time.monotonic()
        self._begun = begun
        self._say(
            f"faults for {self._options.minutes:g} minutes, seed {self._options.seed}; logs in {HOME / 'log'}"
        )
        clients, director = self._system.clients, self.run.director
        clients.start()
        while self._now() < self._options.seconds:
            self._tick()
            clients.tick()
            director.tick(self._now())
        self._say("healing everything, waiting until all is quiet")
        while not (director.heal_all() and self._calm()):
            self._tick()
        self._until_quiet()
        self.run.replayed = self._replay()
        if self.run.replayed:
            self._say(f"dead letters: {self.run.replayed}")
            self._until_quiet()
        self.run.seconds = self._now()
        self.run.books = self._read()
        self.run.completed_at_s = self._completions()
        return self.run

    def _now(self) -> float:
        return time.monotonic() - self._begun

    def _tick(self) -> None:
        self._stack.watch()
        self._system.fleet.watch()
        self.run.watch.tick(self._now())
        self._show()
        time.sleep(TICK_S)

    def _calm(self) -> bool:
        try:
            self._system.sandbox.set_faults({})
        except AWAY:
            return False
        return True

    def _until_quiet(self) -> None:
        """Until nothing is open any more, or nothing moves any more."""
        last: tuple[object, ...] = ()
        moved_at = time.monotonic()
        fewest = (
            sys.maxsize
        )  # periodic messages are added all the time: only fewer open ones than ever are progress
        while time.monotonic() - moved_at < STILL_S:
            self._tick()
            watch, clients = self.run.watch, self._system.clients
            try:
                events = self._system.sandbox.events_due()
            except AWAY:
                continue
            sample = watch.samples[-1]
            fewest = min(fewest, sample.open_messages)
            figures = (watch.completed, watch.open_orders, fewest, len(clients.log), events)
            if figures != last:
                last, moved_at = figures, time.monotonic()
            seen = bool(sample.units) and bool(sample.depths)
            self.run.quiet = (
                seen and clients.placed == len(clients.log) and events == sample.open_messages == 0
            )
            if self.run.quiet and (watch.open_orders == 0 or time.monotonic() - moved_at > 10):
                return

    def _replay(self) -> str:
        """What an operator does the morning after: send every open letter again, once."""
        if not self._system.database.number("SELECT count(*) FROM dlq_deadletter WHERE state = 'open'"):
            return ""
        done = subprocess.run(
            [sys.executable, "manage.py", "dlq", "replay", "--all"],
            cwd=ROOT,
            env=self._stack.process_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        return (done.stdout.strip() or done.stderr.strip()).splitlines()[-1]

    def _read(self) -> Books:
        return read_chaos_books(
            self._system.sandbox,
            at_start=self._at_start,
            requests=self._system.clients.log,
            samples=self.run.watch.samples,
            injected=frozenset(self._system.injected),
        )

    def _completions(self) -> list[float]:
        """Seconds after the start at which orders were completed."""
        rows = self._system.database.rows(
            "SELECT extract(epoch FROM completed_at)::float8 FROM orders_order WHERE completed_at IS NOT NULL ORDER BY 1"
        )
        return [at - self.run.begun_at for (at,) in rows]

    def _show(self) -> None:
        if time.monotonic() < self._line_at:
            return
        self._line_at = time.monotonic() + LINE_S
        struck, watch, clients = self.run.director.struck, self.run.watch, self._system.clients
        hits = sum(each.in_flight > 0 for each in struck)
        kills = sum(each.kind.kills for each in struck)
        now = ", ".join(each.kind.name for each in self.run.director.active) or (
            struck[-1].kind.name if struck else ""
        )
        open_messages = watch.samples[-1].open_messages if watch.samples else 0
        self._say(
            f"{self._now():6.1f} s  placed {clients.placed:,}  accepted {clients.counts()['ok']:,}"
            f"  completed {watch.completed:,}  open messages {open_messages:,}"
            f"  faults {len(struck)} (hit {hits}, kill -9 {kills})  {now[:60]}"
        )


def abort_unless_linux() -> None:
    """The faults look into /proc and freeze whole process trees."""
    if sys.platform != "linux":
        raise StackError("make chaos needs Linux: its faults look into /proc")
