"""`make up` and `make demo` as a user runs them, in a checkout of their own: how they start, end and heal."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.queues import TIERS
from lab.stack.processes import free_port
from lab.stack.state import read_pairs
from tests.support.checkout import Checkout, copied
from tests.support.processes import await_

pytestmark = pytest.mark.slow

#: Of prctl(2) and capabilities(7).
PR_CAPBSET_DROP, CAP_NET_BIND_SERVICE = 24, 10


@pytest.fixture
def checkout() -> Iterator[Checkout]:
    with copied() as checkout:
        yield checkout


def test_up_serves_heals_after_kill_and_leaves_nothing(checkout: Checkout) -> None:
    port = free_port()
    first = checkout.start("-m", "lab.up", PORT=str(port))
    assert checkout.wait_for("ready ", first) == f"ready http://127.0.0.1:{port}/"
    assert "admin  user `admin`, password " in checkout.log.read_text()
    assert (checkout.var / "demo-api-key").stat().st_mode & 0o077 == 0
    sandbox = (checkout.var / "sandbox-url").read_text().strip()
    assert urllib.request.urlopen(f"{sandbox}/healthz", timeout=10).status == 200
    key = (checkout.var / "demo-api-key").read_text()
    names = ["web", *TIERS, "relay", "beat", "sandbox"]
    logs = [checkout.var / "log" / f"{name}.log" for name in names]
    await_(lambda: all(log.stat().st_size for log in logs), "every process has written a line")
    shown = checkout.log.read_text()
    assert f"logs   {checkout.var}/log/: {', '.join(log.name for log in logs)}\n" in shown
    for log in logs:
        assert f"{log.stem:<8} | {log.read_text().splitlines()[0]}\n" in shown, "the screen has it, too"
    banners = [
        "celery beat v",
        "relay: running",
        *(f"exchange=default(direct) key={tier}\n" for tier in TIERS),
    ]
    await_(lambda: all(each in checkout.log.read_text() for each in banners), "every process has started")
    *_, hint, password, key_line, ready = checkout.log.read_text().splitlines()
    assert (password.split()[0], key_line.split()[0], ready.split()[0]) == ("admin", "key", "ready"), (
        "what the user needs is the last that the screen shows"
    )
    assert "manage.py dlq show ID" in hint

    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    second = checkout.start("-m", "lab.up", PORT=str(port))
    checkout.wait_for("ready ", second)
    started = [
        line for line in (checkout.var / "log" / "web.log").read_text().splitlines() if "Starting" in line
    ]
    assert len(started) == 1, "the log of the run before is gone"
    assert "admin " not in checkout.log.read_text(), "the password is shown once"
    assert (checkout.var / "demo-api-key").read_text() == key
    assert (checkout.var / "sandbox-url").read_text().strip() == sandbox, "webhook subscriptions point there"

    output = checkout.log.read_bytes()
    third = checkout.start("-m", "lab.demo", ORDERS="1")
    assert third.wait(timeout=30) == 1
    assert f"in use by `make up` (pid {second.pid}): stop it first" in checkout.log.read_text()
    checkout.log.write_bytes(output)

    os.kill(second.pid, signal.SIGTERM)
    assert second.wait(timeout=60) == 0
    assert checkout.left() == []
    assert not (checkout.var / "stack.env").exists()
    assert not (checkout.var / "sandbox-url").exists()


def test_up_on_a_busy_port_is_one_line_and_exit_1(checkout: Checkout) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = checkout.start("-m", "lab.up", PORT=str(port))
        assert process.wait(timeout=60) == 1
    assert checkout.log.read_text() == (
        f"up: port {port} is busy: stop what listens there, or choose another one: make up PORT={port + 1}\n"
    )
    assert checkout.left() == []


def _cannot_bind_below_1024() -> None:
    """In the child, before exec: root keeps the capability otherwise."""
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_NET_BIND_SERVICE, 0, 0, 0)


@pytest.mark.skipif(
    int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 80,
    reason="every user of this machine may listen on port 80",
)
def test_up_on_a_port_for_root_says_that_it_is_not_permitted(checkout: Checkout) -> None:
    process = checkout.start("-m", "lab.up", PORT="80", before_exec=_cannot_bind_below_1024)
    assert process.wait(timeout=60) == 1
    assert checkout.log.read_text() == (
        "up: listening on port 80 is not permitted: choose one from 1024 on, such as make up PORT=8000\n"
    )
    assert checkout.left() == []


def test_up_on_an_address_of_another_machine_names_the_variable(checkout: Checkout) -> None:
    process = checkout.start("-m", "lab.up", PORT=str(free_port()), WEB_HOST="192.0.2.1")
    assert process.wait(timeout=60) == 1
    assert "(WEB_HOST, PORT): Cannot assign requested address" in checkout.log.read_text()


@pytest.mark.parametrize(
    ("variable", "url"),
    [
        ("DATABASE_URL", "postgres://u:hunter2@127.0.0.1:1/holdfast"),
        ("BROKER_URL", "redis://:hunter2@127.0.0.1:1/0"),
        ("BROKER_URL", "amqp://u:hunter2@127.0.0.1:1//"),
        ("REDIS_URL", "redis://:hunter2@127.0.0.1:1/1"),
    ],
)
def test_up_names_the_variable_of_a_server_that_does_not_answer(
    checkout: Checkout, variable: str, url: str
) -> None:
    process = checkout.start("-m", "lab.up", PORT=str(free_port()), **{variable: url})
    assert process.wait(timeout=30) == 1
    [line] = checkout.log.read_text().splitlines()
    assert line.startswith(f"up: no answer from the servers of {variable} (")
    assert "Connection refused" in line
    assert "hunter2" not in line
    assert checkout.left() == []


def test_up_refuses_a_port_that_is_none(checkout: Checkout) -> None:
    process = checkout.start("-m", "lab.up", PORT="http")
    assert process.wait(timeout=60) == 1
    assert checkout.log.read_text() == "up: PORT must be a port number, not 'http'\n"


def test_a_small_demo_holds_after_one_that_was_killed(checkout: Checkout) -> None:
    killed = checkout.start("-m", "lab.demo", ORDERS="50")
    checkout.wait_for("ready ", killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()

    process = checkout.start("-m", "lab.demo", ORDERS="5")
    assert process.wait(timeout=150) == 0, checkout.log.read_text()
    report = checkout.log.read_text()
    assert "orders    completed 5  failed 0" in report
    assert "invariants hold" in report
    assert checkout.left() == []


def test_manage_stack_needs_no_settings_and_serves_other_terminals(checkout: Checkout) -> None:
    stack = checkout.start("manage.py", "stack")
    checkout.wait_for("ready", stack)
    checked = subprocess.run(
        [sys.executable, "manage.py", "check", "--database", "default"],
        cwd=checkout.path,
        env=checkout.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    assert "DATABASE_URL" in read_pairs(checkout.var / "stack.env")
    stack.send_signal(signal.SIGINT)
    assert stack.wait(timeout=30) == 0
    assert not (checkout.var / "stack.env").exists()
