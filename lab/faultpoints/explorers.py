"""Runs every scenario into every one of its I/O boundaries and crashes there; exit status 1 if anything is amiss."""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import logging
import os
import signal
import time
from collections.abc import Sequence
from typing import Any

from lab.faultpoints.boundaries import Crossing, Point, install
from lab.faultpoints.mutating import remove_guards
from lab.faultpoints.mutations import MUTATIONS
from lab.stack.processes import die_with_parent

_environment: Any = None


def begin(environments: Any, mutation: str | None) -> None:
    """Make this process an explorer: its own servers' settings, Django, hooks, and the mutation if there is one."""
    global _environment
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Their parent ends the explorers,
    die_with_parent(signal.SIGKILL)()  # also by being killed.
    os.environ.update(environments.get())
    if mutation:
        remove_guards(MUTATIONS[mutation].patches)
    _spare_the_libraries_waste()
    import django

    django.setup()
    logging.disable(logging.CRITICAL)
    install()
    from config.celery import app

    app.loader.import_default_modules()  # as a worker does at its start
    from lab.faultpoints.environment import Environment

    _environment = Environment(os.environ["STRIPE_API_BASE"])
    _environment.found()
    gc.freeze()  # A fork shares these pages; a collection in the child would copy them.


def _spare_the_libraries_waste() -> None:
    """What client libraries do again for each connection or command, and which no I/O depends on: a tenth of all time."""
    from kombu.transport.redis import Channel

    # redis-py asks for its own version at every connection, which reads a file and takes longer than to connect.
    importlib.metadata.version = functools.cache(importlib.metadata.version)
    # kombu makes a client for every command, whose table of callbacks takes longer than the command.
    create = Channel._create_client

    def client(channel: Any, asynchronous: bool = False) -> Any:
        pool = channel.async_pool if asynchronous else channel.pool
        if not hasattr(pool, "only_client"):
            pool.only_client = create(channel, asynchronous)
        return pool.only_client

    Channel._create_client = client


def names() -> list[str]:
    from lab.faultpoints.scenarios import SCENARIOS

    return list(SCENARIOS)


def missing() -> list[str]:
    from lab.faultpoints import coverage

    return coverage.missing()


def trace(name: str) -> list[Crossing]:
    return list(_explorer(name).trace())


def strike(name: str, kind: str, point: Point, second: Point | None = None) -> Any:
    return _explorer(name).strike(kind, point, second)


def explore(
    name: str, kind: str, crossings: Sequence[Crossing], part: int, parts: int
) -> tuple[list[Any], float]:
    began = time.monotonic()
    found = list(_explorer(name).explore(kind, crossings, part=part, parts=parts))
    return found, time.monotonic() - began


def pairs(
    name: str, wanted: int, seed: int, crossings: Sequence[Crossing], part: int, parts: int
) -> tuple[list[Any], float]:
    began = time.monotonic()
    found = list(_explorer(name).pairs(crossings, wanted=wanted, seed=seed, part=part, parts=parts))
    return found, time.monotonic() - began


def hunt(name: str) -> tuple[str, str]:
    """Explore with this guard removed until the check that it names fails; returns (violation, how to see it again).

    Both are '' when nothing noticed; a violation by another name does not count.
    """
    from django.db import connection

    mutation = MUTATIONS[name]
    with connection.cursor() as cursor:
        for without, _ in mutation.without:
            cursor.execute(without)
    try:
        return _hunt(mutation)
    except Exception as error:
        # Told in words: an exception of an app cannot be unpickled where Django is not set up.
        raise RuntimeError(f"{type(error).__name__}: {error}") from None
    finally:
        with connection.cursor() as cursor:
            cursor.execute(_environment.wipe)
            for _, again in mutation.without:
                cursor.execute(again)


def _hunt(mutation: Any) -> tuple[str, str]:
    explorer = _explorer(mutation.scenario)
    crossings, found = explorer.undisturbed()
    for violation in found:
        if violation.startswith(mutation.caught_by):
            return violation, "undisturbed"
    sides = ("after", "before") if mutation.strike in ("kill", "cut") else ("before",)
    for side in sides:
        for crossing in crossings:
            outcome = explorer.strike(mutation.strike, Point(crossing.number, side), label=str(crossing))
            for violation in outcome.violations:
                if violation.startswith(mutation.caught_by):
                    return violation, f"{mutation.scenario} {mutation.strike} {outcome.point}"
    return "", ""


def _explorer(name: str) -> Any:
    from lab.faultpoints.explorer import Explorer
    from lab.faultpoints.scenarios import SCENARIOS

    if name not in SCENARIOS:
        raise LookupError(f"there is no scenario {name!r}; there are {', '.join(SCENARIOS)}")
    return Explorer(_environment, SCENARIOS[name])
