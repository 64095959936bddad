"""The embedded stack: real servers that start anywhere, survive any end of the run before, and leave nothing."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest
import redis

from lab.stack import Stack, StackError
from lab.stack.leftovers import end_leftovers, leftovers
from lab.stack.postgres import Postgres, _can_reach
from lab.stack.stack import ROOT
from lab.stack.state import read_pairs

SERVER_URLS = ("DATABASE_URL", "BROKER_URL", "REDIS_URL")

# A program that holds a stack open until it is killed, as `make up` does.
HOLD = """
import sys, time
from pathlib import Path
from lab.stack import Stack
directory = Path(sys.argv[1])
stack = Stack(directory, title="test", env_file=directory / "stack.env", durable=False)
stack.start()
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def no_servers_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test run's own servers are in the environment, where they would win."""
    for name in (*SERVER_URLS, "SECRET_KEY", "STRIPE_API_BASE", "SANDBOX_PORT", "SANDBOX_SMTP_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short, and with 0700 above it: what a checkout under /root looks like to another user."""
    parent = Path(tempfile.mkdtemp(prefix="hf-"))
    yield parent / "var"
    Stack(parent / "var", title="test", env_file=None).erase()
    shutil.rmtree(parent)


def open_stack(directory: Path) -> Stack:
    return Stack(directory, title="test", env_file=directory / "stack.env", durable=False)


def query(url: str, sql: str) -> object:
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone()[0] if cursor.description else None
    finally:
        connection.close()


def eventually(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, "did not come true in time"
        time.sleep(0.02)


def interpreter_for_others() -> str | None:
    """An interpreter of our version that every user may run, whose packages are given by PYTHONPATH."""
    for candidate in (Path(sys.executable), Path(f"/usr/bin/python3.{sys.version_info.minor}")):
        if candidate.exists() and _can_reach(candidate.resolve(), pwd.getpwnam("nobody").pw_uid):
            return str(candidate)
    return None


def hold_a_stack(directory: Path) -> subprocess.Popen[str]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "ready\n"
    return holder


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


def test_a_second_start_in_one_directory_is_refused_in_one_line_that_names_the_first(directory: Path) -> None:
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


def test_orphans_that_outlived_their_owner_are_ended_by_the_next_start(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a system without a parent-death signal: nobody ends the servers when their owner is gone.
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


def test_a_stack_below_the_directory_of_another_one_is_left_alone_while_it_runs(directory: Path) -> None:
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


def test_a_server_far_below_the_directory_is_not_ours_though_nobody_holds_its_lock(directory: Path) -> None:
    """A stack in /tmp must not end the servers of every checkout under /tmp."""
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


def test_a_copied_directory_does_not_take_the_originals_data_and_a_moved_one_keeps_it(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.stack.postgres._can_reach", lambda path, uid: False)
    monkeypatch.setattr("lab.stack.postgres._unprivileged_user", lambda: (os.getuid(), os.getgid()))
    monkeypatch.setattr("lab.stack.postgres.os.geteuid", lambda: 0)
    original = Postgres(directory / "postgres", password="", log=directory / "log", env={})
    home = original._prepare_home()
    try:
        assert home.parent == Path("/var/tmp")
        copy = Postgres(directory / "copy", password="", log=directory / "log", env={})
        shutil.copytree(original.directory, copy.directory)
        assert copy.home() == copy.directory
        copy.erase()
        assert home.exists()
        assert original.home() == home
        original.directory.rename(directory / "moved")
        assert Postgres(directory / "moved", password="", log=directory / "log", env={}).home() == home
    finally:
        shutil.rmtree(home)


def test_a_server_that_starts_again_insists_on_its_port_because_others_know_it(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The servers' patience is half a minute; here it has an end that a test can wait for.
    monkeypatch.setattr("lab.stack.processes.port_for.__kwdefaults__", {"seconds": 0.5}, raising=True)
    with open_stack(directory) as stack:
        for server in (stack._redis, stack._postgres):
            server._process.kill()
            eventually(server.died)
            taken = rf"its port {server.port} was taken while it was down"
            with socket.create_server(("127.0.0.1", server.port)), pytest.raises(StackError, match=taken):
                stack.watch()
            stack.watch()
        assert query(stack.environment["DATABASE_URL"], "SELECT 1") == 1
        with redis.from_url(stack.environment["BROKER_URL"]) as broker:
            assert broker.ping()


def test_a_stale_pid_file_that_names_a_living_stranger_does_not_stop_the_start(directory: Path) -> None:
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


def test_a_server_that_was_killed_is_started_again_with_its_data_on_the_same_address(directory: Path) -> None:
    with open_stack(directory) as stack:
        url = stack.environment["DATABASE_URL"]
        query(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        for server in (stack._postgres, stack._redis):
            server._process.kill()
            eventually(server.died)
        stack.watch()
        assert query(url, "SELECT answer FROM kept") == 42
        with redis.from_url(stack.environment["BROKER_URL"]) as broker:
            assert broker.ping()


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


def test_a_socket_path_of_any_length_is_no_problem(directory: Path) -> None:
    deep = directory.joinpath(*["a-rather-long-directory-name"] * 5)
    with open_stack(deep) as stack:
        assert query(stack.environment["DATABASE_URL"], "SELECT 1") == 1
    Stack(deep, title="test", env_file=None).erase()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_it_starts_for_an_unprivileged_user_too(directory: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    packages = Path(psycopg2.__file__).parent.parent
    interpreter = interpreter_for_others()
    if interpreter is None or not _can_reach(packages, nobody.pw_uid):
        pytest.skip("the interpreter or its packages are where other users cannot go (under /root?)")
    # The user needs a copy of the code it can read: this checkout may be under /root too.
    place = Path(tempfile.mkdtemp(prefix="hf-nobody-"))
    place.chmod(0o755)
    try:
        shutil.copytree(ROOT / "lab", place / "lab")
        (place / "state").mkdir()
        shutil.chown(place / "state", nobody.pw_uid, nobody.pw_gid)
        script = HOLD.replace("time.sleep(600)", "stack.stop()")
        ran = subprocess.run(
            [interpreter, "-c", script, str(place / "state")],
            cwd=place,
            user=nobody.pw_uid,
            group=nobody.pw_gid,
            extra_groups=[],
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": str(packages)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.stdout == "ready\n", ran.stderr
        assert ran.returncode == 0
    finally:
        shutil.rmtree(place)


@pytest.mark.skipif(os.geteuid() != 0, reason="root's own difficulty")
def test_root_keeps_what_the_servers_user_cannot_reach_in_a_place_that_erase_removes(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a checkout under /root: neither the data directory nor the programs in .venv can be reached.
    monkeypatch.setattr("lab.stack.postgres._can_reach", lambda path, uid: False)
    with open_stack(directory) as stack:
        home = stack._postgres.home()
        assert home.parent == Path("/var/tmp")
        owner = (home / "data").stat().st_uid
        assert owner != 0, "PostgreSQL refuses to run as root"
    stack.erase()
    assert not home.exists()


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


@pytest.mark.parametrize(
    "text", ["", "\n", ".", "/", "/var/tmp", "/var/tmp/other", "/var/tmp/holdfast-postgres-x/.."]
)
def test_what_a_killed_run_left_half_written_never_names_a_directory_that_is_not_ours(
    tmp_path: Path, text: str
) -> None:
    """The named directory is erased and its servers are ended; an empty file would name the current one."""
    (tmp_path / "moved-to").write_text(text)
    assert Postgres(tmp_path, password="", log=tmp_path / "log", env={}).home() == tmp_path
