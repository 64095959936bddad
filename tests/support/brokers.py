"""Which broker a test uses: marks that choose one, a switch to another, and a Redis that a test may kill."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings
from django.core.cache import cache
from django.test import override_settings
from kombu import pools

from config.celery import app
from config.queues import TIERS, UNDELIVERABLE, declare, is_rabbitmq, transport_options
from lab.stack.redis import Redis

#: For tests that take their part of the time of every run on both brokers.
on_both_brokers = pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)
#: For tests whose run on RabbitMQ is left to `make proof`.
on_rabbitmq_in_proof = pytest.mark.parametrize(
    "broker", ["redis", pytest.param("rabbitmq", marks=pytest.mark.proof)], indirect=True
)
on_rabbitmq = pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)


@contextmanager
def using(url: str, **options: Any) -> Iterator[None]:
    """This process, and every process that a test starts in the block, use the broker at `url`."""
    before = os.environ.get("BROKER_URL")
    chosen = {
        "CELERY_BROKER_URL": url,
        "CELERY_TASK_QUEUES": declare(url),
        "CELERY_BROKER_TRANSPORT_OPTIONS": {**transport_options(url, visibility_timeout_s=900), **options},
    }
    os.environ["BROKER_URL"] = url
    try:
        # Celery reads its configuration from these settings. Written to `app.conf`, it would hide them from later tests.
        with override_settings(**chosen):
            _forget_derived()
            yield
    finally:
        _forget_derived()
        os.environ.pop("BROKER_URL") if before is None else os.environ.update(BROKER_URL=before)


def _forget_derived() -> None:
    """What the application and kombu derived from the settings before."""
    for derived in ("amqp", "control"):
        app.__dict__.pop(derived, None)
    # kombu keeps one pool per URL, closed or not, and would hand out a closed one again.
    app._pool = None
    pools.reset()


def empty() -> None:
    """Empty the broker in use and the run's own Redis: messages, locks and cache."""
    url = settings.CELERY_BROKER_URL
    if is_rabbitmq(url):
        with app.connection_for_write() as connection:
            for queue in (*TIERS, UNDELIVERABLE):
                # Not a purge: messages that a killed worker held would come back after it.
                connection.default_channel.queue_delete(queue)
    for each in {settings.REDIS_URL, url}:
        if each.startswith(("redis", "unix")):
            with redis.Redis.from_url(each.replace("redis+socket", "unix")) as client:
                client.flushall()
    cache.clear()


@contextmanager
def private_redis(**options: Any) -> Iterator[Redis]:
    """A Redis that a test may kill or freeze, as the broker in use."""
    with private_directory() as directory:
        server = Redis(
            directory / "redis", password="test", log=directory / "log", env=dict(os.environ), durable=False
        )
        server.start()
        try:
            with using(server.url(0), **options):
                yield server
        finally:
            server.signal(signal.SIGCONT)
            server.stop()


@contextmanager
def private_directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="holdfast-broker-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
