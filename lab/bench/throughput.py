"""Tasks a second on two worker processes: no-ops against plain Celery, one written row against two peers."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import redis
from django.db import connection

from lab.bench import effects
from lab.bench.figures import Figure, ratio, take_turns
from lab.bench.world import World, open_messages, stage, wait_until

NOOPS = 2_000
WRITES = 2_000
REPETITIONS = 3
WORKERS = 2
TIMEOUT_S = 300.0
#: Of tasks that take no time a worker fetches one more than it runs, on both sides: what such tasks have the setting for.
SHORT = {"WORKER_PREFETCH": "2", "VISIBILITY_TIMEOUT": "1800"}
#: The default, which is right for tasks that wait for somebody.
ONE_BY_ONE = {"WORKER_PREFETCH": "1"}
CELERYS_DEFAULT = {"WORKER_PREFETCH": "4"}


def run(world: World) -> list[Figure]:
    world.check_peers()
    noops = take_turns(
        REPETITIONS,
        {
            "transactional": lambda: noop_rate(world, "noop", SHORT),
            "leased": lambda: noop_rate(world, "leased_noop", SHORT),
            "plain Celery": lambda: plain_rate(world, SHORT),
            "transactional, one by one": lambda: noop_rate(world, "noop", ONE_BY_ONE),
            "plain Celery, one by one": lambda: plain_rate(world, ONE_BY_ONE),
            "plain Celery, its default": lambda: plain_rate(world, CELERYS_DEFAULT),
        },
    )
    writes = take_turns(
        REPETITIONS,
        {
            "outbox": lambda: write_rate(world),
            "procrastinate": lambda: procrastinate_rate(world),
            "DBOS": lambda: dbos_rate(world),
            "pgqueuer": lambda: pgqueuer_rate(world),
            "django-tasks": lambda: django_tasks_rate(world),
        },
    )
    return [
        Figure("no-op tasks through outbox and journal", statistics.median(noops["transactional"]), "task/s"),
        Figure("… / plain Celery with acks_late, prefetch 2 on both sides",
               ratio(noops, "transactional", "plain Celery"), "x", least=0.75, turns=noops),
        Figure("… / plain Celery at its default of 4, with 2 here",
               ratio(noops, "transactional", "plain Celery, its default"), "x"),
        Figure("… with the default prefetch of 1 on both sides",
               ratio(noops, "transactional, one by one", "plain Celery, one by one"), "x"),
        Figure("… with a lease instead of a row lock / plain Celery", ratio(noops, "leased", "plain Celery"), "x"),
        Figure("tasks that write one row", statistics.median(writes["outbox"]), "task/s"),
        Figure("… / procrastinate", ratio(writes, "outbox", "procrastinate"), "x", least=1.8, turns=writes),
        Figure("… / DBOS", ratio(writes, "outbox", "DBOS"), "x", least=1),
        Figure("… / pgqueuer", ratio(writes, "outbox", "pgqueuer"), "x"),
        Figure("… / the database worker of django-tasks", ratio(writes, "outbox", "django-tasks"), "x"),
    ]  # fmt: skip


def noop_rate(world: World, task: str, env: dict[str, str]) -> float:
    """From the commit of all messages to the end of the last, relay included."""
    world.empty()
    with world.relay(), world.worker(concurrency=WORKERS, env=env):
        stage(NOOPS, task=f"lab.bench.tasks.{task}")
        wait_until(lambda: open_messages() == 0, "all tasks", seconds=TIMEOUT_S, every_s=0.25)
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT extract(epoch FROM max(done_at) - max(created_at))::float8 FROM outbox_outboxmessage"
            )
            return NOOPS / float(cursor.fetchone()[0])


def plain_rate(world: World, env: dict[str, str]) -> float:
    """From the moment when all messages stand in the queue to the acknowledgement of the last."""
    from lab.bench.peers import plain

    world.empty()
    for number in range(NOOPS):
        plain.noop.apply_async((number,), queue="staged")
    with (
        redis.Redis.from_url(os.environ["BROKER_URL"]) as client,
        world.worker(concurrency=WORKERS, app="lab.bench.peers.plain", queue="plain", env=env),
    ):
        (before, before_us) = client.time()
        client.rename("staged", "plain")
        wait_until(
            lambda: not client.llen("plain") and not client.hlen("unacked"), "all tasks", seconds=TIMEOUT_S
        )
        (after, after_us) = client.time()
    return NOOPS / (after - before + (after_us - before_us) / 1e6)


def write_rate(world: World) -> float:
    world.empty()
    with world.relay(), world.worker(concurrency=WORKERS, env=SHORT):
        stage(WRITES, task="lab.bench.tasks.write")
        return _rate_of_effects()


def procrastinate_rate(world: World) -> float:
    env = {"DJANGO_SETTINGS_MODULE": "lab.bench.peers.procrastinate_settings"}
    stage_them = ["-m", "lab.bench.peers.procrastinate_stage"]
    world.empty()
    world.peer([*stage_them, "0"], env=env)
    with _processes(world, ["-m", "django", "procrastinate", "worker"], ready="", env=env):
        wait_until(lambda: _count("procrastinate_workers") == WORKERS, "procrastinate's workers")
        world.peer([*stage_them, str(WRITES)], env=env)
        return _rate_of_effects()


def dbos_rate(world: World) -> float:
    module = "lab.bench.peers.dbos_worker"
    world.empty()
    world.peer(["-m", module, "enqueue", str(WRITES)])
    with _processes(world, ["-m", module, "work"], ready="working", env={}):
        return _rate_of_effects()


def pgqueuer_rate(world: World) -> float:
    module = "lab.bench.peers.pgqueuer_worker"
    world.empty()
    world.peer(["-m", module, "enqueue", str(WRITES)])
    with _processes(world, ["-m", module, "work"], ready="working", env={}):
        return _rate_of_effects()


def django_tasks_rate(world: World) -> float:
    env = {"DJANGO_SETTINGS_MODULE": "lab.bench.peers.django_tasks_settings"}
    world.empty()
    world.peer(["-m", "lab.bench.peers.django_tasks_stage", str(WRITES)], env=env)
    with _processes(world, ["-m", "django", "db_worker"], ready="Starting worker", env=env):
        return _rate_of_effects()


@contextmanager
def _processes(world: World, arguments: list[str], *, ready: str, env: dict[str, str]) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(WORKERS):
            stack.enter_context(world.process(arguments, ready=ready, env=env, python=world.peers))
        yield


def _rate_of_effects() -> float:
    """From the first row to the last: what starting and staging took is not counted."""
    wait_until(lambda: effects.count() >= WRITES, "all tasks", seconds=TIMEOUT_S, every_s=0.25)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT extract(epoch FROM max(written_at) - min(written_at))::float8 FROM bench_effect"
        )
        return (WRITES - 1) / float(cursor.fetchone()[0])


def _count(table: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table}")
        return int(cursor.fetchone()[0])
