"""A worker with a Redis and a way to its database of its own, which a module's tests disturb one after another."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis
from django.db import connection
from pytest_django import DjangoDbBlocker
from pytest_django.fixtures import Settings

import outbox
from config.celery import app
from lab.stack.redis import Redis
from outbox.models import OutboxMessage
from outbox.relay.loop import Relay
from tests.support import effects, tasks
from tests.support.brokers import private_redis
from tests.support.pool import assert_every_process_works
from tests.support.processes import Process, await_, worker
from tests.support.proxy import Proxy, proxied

SOCKET_TIMEOUT_S = 2


@dataclass
class World:
    """A worker of two processes; `database` is the proxy through which it, and no other process, reaches PostgreSQL."""

    worker: Process
    server: Redis
    client: redis.Redis
    database: Proxy


@pytest.fixture(scope="module")
def world(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[World]:
    settings = connection.settings_dict
    with (
        django_db_blocker.unblock(),
        private_redis(socket_timeout=SOCKET_TIMEOUT_S) as server,
        redis.Redis.from_url(server.url(0)) as client,
        proxied(settings["HOST"], int(settings["PORT"])) as database,
        worker(
            queues=("default", "critical"),
            env={
                "DATABASE_URL": database_url(database),
                "HOLDFAST_TEST_TRANSPORT": json.dumps({"socket_timeout": SOCKET_TIMEOUT_S}),
            },
        ) as process,
    ):
        yield World(process, server, client, database)


@pytest.fixture
def tidy(world: World, transactional_db: None, settings: Settings) -> Iterator[None]:
    settings.OUTBOX_MARGIN, settings.OUTBOX_WORKER_TIMEOUT = 1, 3
    effects.clear()
    yield
    assert_every_process_works(world.worker)


def database_url(proxy: Proxy) -> str:
    url = urlsplit(os.environ["DATABASE_URL"])
    user = url.netloc.rpartition("@")[0]
    return urlunsplit(
        url._replace(netloc=f"{user}@127.0.0.1:{proxy.port}", path=f"/{connection.settings_dict['NAME']}")
    )


def the_row(task: str) -> OutboxMessage:
    return OutboxMessage.objects.get(task=f"tests.support.tasks.{task}")


@contextmanager
def relay_here() -> Iterator[Relay]:
    """A relay whose passes the test makes; it is connected."""
    relay = Relay(app)
    relay._publisher.depths(["default"])
    yield relay
    relay._publisher.close()


@contextmanager
def running(*names: str) -> Iterator[None]:
    """A message a name is being run in the block, and is told to end after it."""
    outbox.enqueue_many([tasks.until_told.s(name) for name in names])
    with relay_here() as relay:
        relay.run_once()
    await_(lambda: all(effects.count(f"{name}-begun") for name in names), "they run")
    try:
        yield
    finally:
        for name in names:
            effects.add(f"{name}-told")
