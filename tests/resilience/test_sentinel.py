"""Locks, limits and the cache find the Redis master through sentinels, and after a failover the new one."""

from __future__ import annotations

import os
import runpy
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import caches
from django.test import override_settings

from lab.stack.stack import ROOT
from resilience.connection import UNAVAILABLE, get_redis
from resilience.locks import task_lock
from tests.support.processes import await_
from tests.support.sentinel import MASTER_NAME, Watched, client_of, watched_redis

SECRET = "of-the-sentinel"


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a sentinel that takes connections and says nothing, as one whose machine hangs."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch, silent: int) -> Iterator[Watched]:
    """A master behind two sentinels, of which the first is silent and the other asks for a password."""
    with watched_redis(SECRET) as found:
        first = found.url.rpartition("@")[0] + f"@127.0.0.1:{silent}/0"
        found.url = f"{first};sentinel://{found.url.rpartition('@')[2].partition('/')[0]}"
        for name, value in {
            "REDIS_URL": found.url,
            "REDIS_MASTER_NAME": MASTER_NAME,
            "BROKER_URL": found.url,
            "BROKER_MASTER_NAME": MASTER_NAME,
            "SENTINEL_PASSWORD": SECRET,
        }.items():
            monkeypatch.setenv(name, value)
        yield found


@pytest.fixture
def configured(watched: Watched) -> Iterator[dict[str, Any]]:
    """The settings that such an environment gives."""
    read = runpy.run_path(str(ROOT / "config" / "settings.py"))
    names = ("REDIS_URL", "RESILIENCE_REDIS_MASTER", "RESILIENCE_SENTINEL_KWARGS", "CACHES")
    with override_settings(**{name: read[name] for name in names}):
        yield read


@pytest.mark.promise(
    "P6",
    "the Redis master fails, behind sentinels of which one hangs",
    "as while Redis is down, until the replica is promoted; then everything uses the replica",
)
@pytest.mark.usefixtures("configured")
def test_locks_and_the_cache_follow_a_failover(watched: Watched) -> None:
    began = time.monotonic()
    get_redis().set("a", "1")
    assert time.monotonic() - began < 2.5, "a silent sentinel costs its timeout once"
    caches["default"].set("b", "2")
    await_(lambda: "a" in replicated(watched), "the replica has it")
    watched.master.kill()
    with pytest.raises(UNAVAILABLE):
        get_redis().get("a")

    def is_back() -> bool:
        try:
            return get_redis().set("a", "3") is True
        except UNAVAILABLE:
            return False

    await_(is_back, "the replica is promoted")
    with task_lock("user_id", 7):
        assert caches["default"].get("b") == "2"
        caches["default"].set("b", "4")
    assert {"a", ":1:b"} <= replicated(watched)


def replicated(watched: Watched) -> set[str]:
    with client_of(watched.replica) as client:
        return set(client.keys())


def test_the_broker_is_found_through_sentinels_that_ask_for_a_password(watched: Watched) -> None:
    """In a process of its own, which has nothing but the environment."""
    code = (
        "import django; django.setup()\n"
        "from config.celery import app\n"
        "with app.connection_for_write() as connection:\n"
        "    print(connection.default_channel.client.info('replication')['role'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env=os.environ | {"DJANGO_SETTINGS_MODULE": "config.settings"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "master\n", done.stderr[-2000:]
