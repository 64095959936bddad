"""The embedded stack: real servers that start anywhere, with settings that outlive a restart."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import redis

from lab.stack import Stack, StackError
from lab.stack.leftovers import leftovers
from lab.stack.postgres import Postgres
from lab.stack.state import read_pairs
from tests.lab.stack.support import SERVER_URLS, open_stack, query


def test_both_servers_answer_and_nothing_is_left_after_stop(directory: Path) -> None:
    with open_stack(directory) as stack:
        settings = read_pairs(directory / "stack.env")
        assert str(query(settings["DATABASE_URL"], "SELECT version()")).startswith("PostgreSQL")
        with redis.from_url(settings["BROKER_URL"]) as broker, redis.from_url(settings["REDIS_URL"]) as cache:
            assert broker.ping()
            broker.set("queue", "message")
            assert cache.get("queue") is None, "wiping the broker would wipe the cache too"
            assert broker.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert (directory / "stack.env").stat().st_mode & 0o077 == 0, "it holds passwords"
        assert stack.environment.items() <= settings.items()
    assert leftovers(directory.resolve()) == []
    assert not (directory / "stack.env").exists()


def test_data_and_secrets_and_ports_outlive_a_restart(directory: Path) -> None:
    with open_stack(directory) as stack:
        query(stack.environment["DATABASE_URL"], "CREATE TABLE kept AS SELECT 42 AS answer")
        before = dict(stack.environment)
    with open_stack(directory) as stack:
        assert query(stack.environment["DATABASE_URL"], "SELECT answer FROM kept") == 42
        assert stack.environment == before


def test_two_stacks_side_by_side_share_nothing(directory: Path) -> None:
    other = directory.parent / "other"
    with open_stack(directory) as one, open_stack(other) as two:
        query(one.environment["DATABASE_URL"], "CREATE TABLE mine (id int)")
        assert query(two.environment["DATABASE_URL"], "SELECT to_regclass('mine') IS NULL")
        assert one.environment["SECRET_KEY"] != two.environment["SECRET_KEY"]
    Stack(other, title="test", env_file=None).erase()


def test_urls_in_the_environment_win_and_then_no_server_is_started(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SERVER_URLS:
        monkeypatch.setenv(name, f"given://{name.lower()}")
    with open_stack(directory) as stack:
        assert [stack.environment[name] for name in SERVER_URLS] == [
            f"given://{name.lower()}" for name in SERVER_URLS
        ]
        assert leftovers(directory.resolve()) == []
        assert not (directory / "postgres").exists()


def test_a_missing_server_is_one_line_that_says_what_to_install(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.stack.redis.importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(StackError, match=r"no Redis server: put redis-server or valkey-server on PATH"):
        open_stack(directory).start()
    assert leftovers(directory.resolve()) == []


def test_a_busy_port_is_avoided(directory: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = Postgres(
            directory / "postgres",
            password="x" * 8,
            log=directory / "postgres.log",
            env=dict(os.environ),
            durable=False,
        )
        directory.mkdir(parents=True)
        server.port = taken.getsockname()[1]
        server.start()
        try:
            assert server.port != taken.getsockname()[1]
        finally:
            server.stop()
            server.erase()
