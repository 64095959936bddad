"""The private RabbitMQ: meets no other node, ends completely, keeps its data if told to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import amqp
import pytest

from lab.stack import StackError
from lab.stack.leftovers import leftovers
from lab.stack.processes import OWNER
from lab.stack.rabbitmq import RabbitMQ
from lab.stack.stack import ROOT
from tests.lab.stack.support import another_user
from tests.support.processes import await_

# A program that holds a server until it is killed.
HOLD = """
import os, sys, time
from pathlib import Path
from lab.stack.rabbitmq import RabbitMQ
directory = Path(sys.argv[1])
server = RabbitMQ(directory / "rabbitmq", password="test", log=directory / "log", env=dict(os.environ), durable=False)
server.start()
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="hf-"))
    yield directory
    shutil.rmtree(directory)


def server_in(directory: Path, *, durable: bool = False) -> RabbitMQ:
    # Marked as a stack's are, so that `leftovers` knows the processes.
    return RabbitMQ(
        directory / "rabbitmq",
        password="test",
        log=directory / "log",
        env={**os.environ, OWNER: str(directory)},
        durable=durable,
    )


@contextmanager
def channel_of(server: RabbitMQ) -> Iterator[amqp.Channel]:
    with amqp.Connection(
        f"127.0.0.1:{server.port}", userid="holdfast", password=server.password, virtual_host="holdfast"
    ) as connection:
        yield connection.channel()


def put(server: RabbitMQ) -> None:
    with channel_of(server) as channel:
        channel.queue_declare("q", durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"})
        channel.confirm_select()
        channel.basic_publish_confirm(amqp.Message("kept"), routing_key="q")


def knows_the_queue(server: RabbitMQ) -> bool:
    with channel_of(server) as channel:
        try:
            channel.queue_declare("q", passive=True)
        except amqp.NotFound:
            return False
        return True


def test_a_missing_server_is_one_line_that_says_what_to_install(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.stack.rabbitmq.DEBIAN", directory / "none")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(StackError, match=r"no RabbitMQ server: `apt-get install rabbitmq-server`"):
        server_in(directory).start()


@pytest.mark.proof
def test_two_side_by_side_share_nothing_and_leave_nothing(rabbitmq: RabbitMQ, directory: Path) -> None:
    put(rabbitmq)
    with_another = server_in(directory)
    with_another.start()
    try:
        assert not knows_the_queue(with_another)
        assert len(leftovers(directory)) >= 2, "the server and its port mapper"
    finally:
        with_another.stop()
    await_(lambda: leftovers(directory) == [], "every process of the server is gone")


@pytest.mark.proof
def test_a_durable_broker_keeps_messages_and_address(directory: Path) -> None:
    """A wiped one does not."""
    server = server_in(directory, durable=True)
    server.start()
    try:
        put(server)
        url = server.url
        server.stop()
        server.start()
        assert server.url == url
        with channel_of(server) as channel:
            assert channel.basic_get("q").body == "kept"
        server.kill()
        server.start(wipe=True)
        assert not knows_the_queue(server)
    finally:
        server.stop()
    await_(lambda: leftovers(directory) == [], "every process of the server is gone")


@pytest.mark.proof
def test_it_ends_when_its_owner_is_killed(directory: Path) -> None:
    holder = hold(sys.executable, ROOT, directory, env={**os.environ, OWNER: str(directory)})
    holder.kill()
    holder.wait()
    await_(lambda: leftovers(directory) == [], "every process of the server is gone", 60)


@pytest.mark.proof
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_it_starts_for_an_unprivileged_user_too(directory: Path) -> None:
    packages = Path(amqp.__file__).parent.parent
    nobody, interpreter = another_user(packages)
    directory.chmod(0o755)
    shutil.copytree(ROOT / "lab", directory / "lab")
    (directory / "state").mkdir()
    shutil.chown(directory / "state", nobody.pw_uid, nobody.pw_gid)
    env = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "PYTHONPATH": str(packages),
        OWNER: str(directory),
    }
    holder = hold(
        interpreter, directory, directory / "state", env=env, user=nobody.pw_uid, group=nobody.pw_gid
    )
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    await_(lambda: leftovers(directory) == [], "every process of the server is gone", 60)


def hold(
    interpreter: str, code: Path, directory: Path, *, env: dict[str, str], **identity: int
) -> subprocess.Popen[str]:
    """Start the program above; returns when its server answers."""
    holder = subprocess.Popen(
        [interpreter, "-c", HOLD, str(directory)],
        cwd=code,
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        extra_groups=[] if identity else None,
        **identity,  # type: ignore[call-overload]
    )
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == "ready\n"
    return holder
