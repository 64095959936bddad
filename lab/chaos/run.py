"""One chaos run from an empty database to the checked ledgers."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lab.chaos import started
from lab.chaos.brokers import Broker, RedisBroker
from lab.chaos.clients import Clients
from lab.chaos.director import Director
from lab.chaos.faults import KINDS, writes
from lab.chaos.options import Options
from lab.chaos.proxy import FaultProxy
from lab.chaos.rabbit import Keeper, RabbitBroker
from lab.chaos.schedule import draw
from lab.chaos.subject import Subject, let_go_of_the_database, subject
from lab.chaos.system import SERVER_DOWN, Database, System
from lab.chaos.watch import Watch
from lab.collect import Sandbox
from lab.fleet import Fleet, files
from lab.invariants import Finding
from lab.stack import Stack, StackError
from lab.stack.pgbouncer import PgBouncer
from lab.stack.processes import free_port
from lab.stillness import Stillness
from lab.up import READY_SECONDS, wait_until_ready

TICK_S = 0.02
LINE_S = 5.0

#: Nothing has changed for this long and no retry is due later: the run hangs. Longer than the longest claim, which is
#: that of a task with a hard limit of 90 s.
STILL_S = 130.0


@dataclass
class Run:
    """What the report is about."""

    options: Options
    subject: Subject
    begun_at: float
    director: Director
    watch: Watch
    clients: Clients
    findings: list[Finding] = field(default_factory=list)
    damage: dict[str, int] = field(default_factory=dict)
    quiet: bool = False
    seconds: float = 0.0
    replayed: str = ""
    completed_at_s: list[float] = field(default_factory=list)


def run(options: Options, say: Callable[[str], None]) -> Run:
    """Start everything, let the faults strike, heal, replay, judge. Raises StackError."""
    tested: Subject = subject(naive=options.naive)
    os.environ.update(tested.settings)
    stack = Stack(options.home / "stack", title="make chaos", owner=options.home, env_file=None, fresh=True)
    fleet: Fleet | None = None
    system: System | None = None
    proxy = FaultProxy()
    rabbitmq = started.rabbitmq(options.home) if options.broker == "rabbitmq" else None
    keeper: Keeper | None = None
    pooler: PgBouncer | None = None
    try:
        stack.start()
        pooler = started.pooler(options.home, stack)
        if rabbitmq is not None:
            say("starting RabbitMQ")
            keeper = Keeper(rabbitmq)
            keeper.begin()
            stack.update_environment(BROKER_URL=rabbitmq.url)
        logs = options.home / "log"
        shutil.rmtree(logs, ignore_errors=True)
        logs.mkdir(parents=True)
        port = free_port()
        stack.update_environment(
            PORT=str(port), SANDBOX_DATA=str(stack.directory / "sandbox"), **tested.settings
        )
        api_key = tested.prepare(stack, logs / "prepare.log")
        fleet = started.fleet(stack, proxy, files(logs), tested.procfile, pooler)
        redis = RedisBroker(stack.environment["REDIS_URL"], ())
        broker: Broker
        if rabbitmq is not None:
            broker = RabbitBroker(rabbitmq, tested.queues)
        else:
            # One object: the faults ask whether the server of locks and cache is the broker, too.
            broker = redis = RedisBroker(stack.environment["BROKER_URL"], tested.queues)
        system = System(
            fleet=fleet,
            proxy=proxy,
            database=Database(stack.environment["DATABASE_URL"]),
            broker=broker,
            redis=redis,
            pooler=pooler,
            sandbox=Sandbox(stack.environment["STRIPE_API_BASE"]),
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
        _await_daemons(tested, system, logs)
        writes.install(system.database)
        fleet.patient = True
        tested.begin(system)
        return _Conductor(options, tested, stack, system, say).conduct()
    finally:
        if system is not None:
            system.clients.stop()
            system.thaw()
        if fleet is not None:
            fleet.stop()
        proxy.close()
        let_go_of_the_database()
        if pooler is not None:
            pooler.stop()
        if keeper is not None:
            keeper.end()
        stack.stop()


def forget(options: Options) -> None:
    """Remove the servers' data; a run that failed keeps it, to find the cause."""
    Stack(options.home / "stack", title="make chaos", owner=options.home, env_file=None).erase()
    shutil.rmtree(options.home / "rabbitmq", ignore_errors=True)


def _await_daemons(tested: Subject, system: System, logs: Path) -> None:
    """Until every daemon has said that it is there: faults before that would hit nothing."""
    give_up_at = time.monotonic() + READY_SECONDS
    while not tested.is_ready(system):
        if time.monotonic() > give_up_at:
            raise StackError(f"workers did not start within {READY_SECONDS:.0f} s: see {logs}")
        system.fleet.watch()
        time.sleep(0.1)


class _Conductor:
    """The phases of a run, all in the main thread: what it starts ends with the thread that started it."""

    def __init__(
        self, options: Options, tested: Subject, stack: Stack, system: System, say: Callable[[str], None]
    ):
        # Every kind is drawn, also one whose role this application has not: the same seed is the same schedule.
        kinds = [kind for kind in KINDS.values() if options.broker in kind.brokers]
        self._options = options
        self._stack = stack
        self._system = system
        self._say = say
        self._line_at = 0.0
        director = Director(system, draw(kinds, seconds=options.seconds, seed=options.seed))
        self._tested = tested
        self.run = Run(options, tested, time.time(), director, Watch(system, tested), system.clients)

    def conduct(self) -> Run:
        begun = time.monotonic()
        self._begun = begun
        self._say(
            f"faults for {self._options.minutes:g} minutes, seed {self._options.seed}; logs in {self._options.home / 'log'}"
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
        self.run.replayed = self._tested.replay(self._stack, self._system)
        if self.run.replayed:
            self._say(f"dead letters: {self.run.replayed}")
            self._until_quiet()
        self.run.seconds = self._now()
        self.run.findings, self.run.damage = self._tested.judge(self._system, self.run.watch.samples)
        self.run.completed_at_s = [at - self.run.begun_at for at in self._tested.completions(self._system)]
        return self.run

    def _now(self) -> float:
        return time.monotonic() - self._begun

    def _tick(self) -> None:
        self._stack.watch()
        self._system.keep_pooler()
        self._system.fleet.watch()
        self.run.watch.tick(self._now())
        self._show()
        time.sleep(TICK_S)

    def _calm(self) -> bool:
        try:
            self._system.sandbox.set_faults({})
        except SERVER_DOWN:
            return False
        return True

    def _until_quiet(self) -> None:
        """Until nothing is open any more, or nothing moves any more."""
        stillness, hangs = Stillness(STILL_S), False
        figures: tuple[object, ...] = ()
        fewest = (
            sys.maxsize
        )  # periodic messages are added all the time: only fewer open ones than ever are progress
        while not hangs:
            self._tick()
            watch, clients = self.run.watch, self._system.clients
            try:
                left = self._tested.work_left(self._system)
                waiting = self._tested.waiting(self._system)
            except SERVER_DOWN:
                hangs = stillness.hangs(figures, waiting=False)
                continue
            sample = watch.samples[-1]
            fewest = min(fewest, sample.open_messages)
            figures = (watch.completed, watch.open_orders, fewest, len(clients.log), left)
            hangs = stillness.hangs(figures, waiting=waiting)
            answered = clients.placed == len(clients.log)
            self.run.quiet = watch.sees and answered and left == sample.open_messages == 0
            if self.run.quiet and (watch.open_orders == 0 or stillness.unchanged_s > 15):
                return

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
