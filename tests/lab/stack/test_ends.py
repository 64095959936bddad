"""The embedded stack survives any end of the run before, and of its own servers, and leaves nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psycopg2
import pytest
import redis

from lab import pytest_stack
from lab.stack import Stack, StackError, processes
from lab.stack.leftovers import end_leftovers, leftovers
from lab.stack.state import read_pairs
from tests.lab.stack.support import HOLD_A_POOLER, ROOT, hold_a_stack, open_stack, query
from tests.support.processes import await_


def test_a_second_start_in_one_directory_is_refused(directory: Path) -> None:
    """In one line that names the first."""
    holder = hold_a_stack(directory)
    try:
        with pytest.raises(StackError, match=rf"in use by `test` \(pid {holder.pid}\): stop it first"):
            open_stack(directory).start()
        assert query(read_pairs(directory / "stack.env")["DATABASE_URL"], "SELECT 1") == 1, (
            "the first was disturbed"
        )
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()
        holder.stdout.close()


def test_servers_end_when_their_owner_is_killed_and_the_next_start_works(directory: Path) -> None:
    holder = hold_a_stack(directory)
    query(read_pairs(directory / "stack.env")["DATABASE_URL"], "CREATE TABLE kept AS SELECT 42 AS answer")
    os.killpg(holder.pid, signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with open_stack(directory) as stack:
        assert query(stack.environment["DATABASE_URL"], "SELECT answer FROM kept") == 42


def test_a_pooler_ends_when_its_owner_is_killed(directory: Path) -> None:
    url = pytest_stack.current().environment["DATABASE_URL"]
    owner = subprocess.Popen(
        [sys.executable, "-c", HOLD_A_POOLER, str(directory)],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": url},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    pooler = int(owner.stdout.readline())
    owner.stdout.close()
    try:
        assert processes._has_running_member(pooler)
        owner.kill()
        owner.wait()
        await_(lambda: not processes._has_running_member(pooler), "the pooler has ended")
    finally:
        processes.kill_group(pooler)


def test_orphans_that_outlived_their_owner_are_ended_by_the_next_start(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a system without a parent-death signal: nothing ends the servers when their owner is gone.
    monkeypatch.setattr("lab.stack.processes._LIBC", None)
    abandoned = open_stack(directory)
    abandoned.start()
    url = abandoned.environment["DATABASE_URL"]
    client = psycopg2.connect(url)  # a smart shutdown would wait for this client for ever
    orphans = leftovers(directory.resolve(), homes=[abandoned._postgres_home()])
    assert orphans
    abandoned._lock.release()

    with open_stack(directory) as stack:
        assert query(stack.environment["DATABASE_URL"], "SELECT 1") == 1
        for server in (abandoned._postgres, abandoned._redis):
            assert server is not None
            assert server.died()
    client.close()


def test_a_running_stack_below_anothers_directory_is_left_alone(directory: Path) -> None:
    """`make chaos` lives in var/chaos, and `make up` owns var/."""
    nested = directory / "chaos"
    holder = hold_a_stack(nested)
    try:
        url = read_pairs(nested / "stack.env")["DATABASE_URL"]
        with open_stack(directory) as stack:
            assert query(stack.environment["DATABASE_URL"], "SELECT 1") == 1
            assert query(url, "SELECT 1") == 1, "the other stack's server was ended"
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    Stack(nested, title="test", env_file=None).erase()


def test_a_server_far_below_the_directory_is_not_ours(directory: Path) -> None:
    """Even if its lock is free. A stack in /tmp must not end the servers of every checkout under /tmp."""
    far = directory / "some" / "checkout" / "var"
    with open_stack(far):
        far.joinpath("lock").unlink()
        assert end_leftovers(directory.resolve()) == 0
    Stack(far, title="test", env_file=None).erase()


def test_what_is_ended_is_said_with_its_reason(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("lab.stack.processes._LIBC", None)
    abandoned = open_stack(directory)
    abandoned.start()
    abandoned._lock.release()
    pid = abandoned._redis._process.pid
    with open_stack(directory):
        place = directory.resolve() / "redis"
        assert f"ending pid {pid} in {place} with SIGINT: a server in the data below" in caplog.text
    assert abandoned._redis.died()
    assert abandoned._postgres.died()


def test_a_server_that_starts_again_keeps_its_port(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other processes know it by that port."""
    # The servers' patience is half a minute; here it has an end that a test can wait for.
    monkeypatch.setattr("lab.stack.processes.port_for.__kwdefaults__", {"seconds": 0.5}, raising=True)
    with open_stack(directory) as stack:
        for server in (stack._redis, stack._postgres):
            server._process.kill()
            await_(server.died, "the server is gone")
            taken = rf"its port {server.port} was taken while it was down"
            with socket.create_server(("127.0.0.1", server.port)), pytest.raises(StackError, match=taken):
                stack.watch()
            stack.watch()
        assert query(stack.environment["DATABASE_URL"], "SELECT 1") == 1
        with redis.from_url(stack.environment["BROKER_URL"]) as broker:
            assert broker.ping()


def test_a_stale_pid_file_does_not_stop_the_start(directory: Path) -> None:
    """It names a process that lives and is no server of ours."""
    with open_stack(directory) as stack:
        data = stack._postgres.home() / "data"
        stale = (data / "postmaster.pid").read_text().splitlines()
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        (data / "postmaster.pid").write_text("\n".join([str(stranger.pid), *stale[1:]]) + "\n")
        with open_stack(directory) as stack:
            assert query(stack.environment["DATABASE_URL"], "SELECT 1") == 1
        assert stranger.poll() is None, "a process that is not ours was ended"
    finally:
        stranger.kill()
        stranger.wait()


def test_a_killed_server_is_started_again_with_its_data(directory: Path) -> None:
    """On the same address."""
    with open_stack(directory) as stack:
        url = stack.environment["DATABASE_URL"]
        query(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        for server in (stack._postgres, stack._redis):
            server._process.kill()
            await_(server.died, "the server is gone")
        stack.watch()
        assert query(url, "SELECT answer FROM kept") == 42
        with redis.from_url(stack.environment["BROKER_URL"]) as broker:
            assert broker.ping()
