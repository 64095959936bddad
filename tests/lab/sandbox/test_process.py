"""`python -m lab.sandbox` as a process: how it starts, serves and ends."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from lab.stack.stack import ROOT
from tests.lab.sandbox_fixture import RunningSandbox, run_sandbox
from tests.support.processes import await_


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A start that is expected to end by itself."""
    command = [sys.executable, "-m", "lab.sandbox", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, cwd=ROOT, check=False)


def answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/healthz", timeout=2).ok
    except requests.ConnectionError:
        return False


def test_it_writes_its_address_while_it_runs_and_takes_it_back(tmp_path: Path) -> None:
    address = tmp_path / "var" / "sandbox-url"
    with run_sandbox(tmp_path, "--url-file", str(address)) as running:
        await_(address.exists, "its address is written")
        assert address.read_text() == running.url + "\n"
    assert not address.exists()


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_even_while_requests_hang(tmp_path: Path, signal_number: int) -> None:
    with run_sandbox(tmp_path) as running:
        running.faults(crm={"hang_rate": 1})
        host, port = running.url.removeprefix("http://").split(":")
        hanging = http.client.HTTPConnection(host, int(port), timeout=10)
        hanging.request("POST", "/crm/orders", "{}")
        await_(lambda: running.bitten("crm", "hang_rate") == 1, "the request hangs")
        running.process.send_signal(signal_number)
        assert running.process.wait(timeout=5) == 0
        hanging.close()


def test_it_ends_with_its_parent_even_if_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-m', 'lab.sandbox', '--data', {str(tmp_path)!r}])\n"
        "child.wait()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().split()[2].rstrip("/")
        assert answers(url)
        parent.kill()
        parent.wait(timeout=5)
        await_(lambda: not answers(url), "nothing answers any more")


@pytest.mark.parametrize("option", ["--port", "--smtp-port"])
def test_a_busy_port_is_one_clear_line_and_exit_1(tmp_path: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = start("--data", str(tmp_path), option, str(port))
    assert ended.returncode == 1
    assert ended.stderr == f"sandbox: cannot listen on 127.0.0.1:{port} ({option}): Address already in use\n"


def test_a_ledger_in_use_is_one_clear_line_and_exit_1(tmp_path: Path) -> None:
    with run_sandbox(tmp_path):
        ended = start("--data", str(tmp_path))
    assert ended.returncode == 1
    assert ended.stderr == f"sandbox: cannot use {tmp_path}: another sandbox is using it\n"


def test_a_directory_that_cannot_be_is_one_clear_line_and_exit_1(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = start("--data", str(tmp_path / "file" / "directory"))
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert "cannot use" in ended.stderr


def test_a_bad_option_is_a_usage_error_and_help_names_every_option() -> None:
    assert start("--port", "70000").returncode == 2
    usage = start("--help").stdout
    for option in ("--port", "--smtp-port", "--data", "--app-url", "--url-file", "--host", "--keys-ttl"):
        assert option in usage


def test_healthz_names_both_addresses(sandbox: RunningSandbox) -> None:
    health = requests.get(f"{sandbox.url}/healthz", timeout=5).json()
    assert (health["status"], health["url"]) == ("ok", sandbox.url)
    assert health["smtp"] == {"host": sandbox.smtp_host, "port": sandbox.smtp_port}
    assert health["pid"] == sandbox.process.pid


def test_a_wrong_path_method_or_body_is_a_clear_4xx(sandbox: RunningSandbox) -> None:
    """The answer says what is wrong."""
    lost = requests.get(f"{sandbox.url}/nowhere", timeout=5)
    assert (lost.status_code, "/nowhere" in lost.json()["error"]) == (404, True)
    wrong = requests.delete(f"{sandbox.url}/crm/orders", timeout=5)
    assert (wrong.status_code, wrong.headers["Allow"]) == (405, "POST")
    for body in (b"{", b"[]", b"\xff", b""):
        assert requests.post(f"{sandbox.url}/crm/orders", data=body, timeout=5).status_code == 400
    large = requests.post(f"{sandbox.url}/crm/orders", data=b"x" * 1_000_001, timeout=5)
    assert large.status_code == 413
    chunked = requests.post(f"{sandbox.url}/crm/orders", data=iter([b"{}"]), timeout=5)
    assert chunked.status_code == 411
    unknown = requests.get(f"{sandbox.url}/ledger/charges?colour=red", timeout=5)
    assert (unknown.status_code, unknown.json()["field"]) == (400, "colour")


def test_an_event_target_that_is_no_address_is_refused(sandbox: RunningSandbox) -> None:
    for url in ("ftp://x", "/path", 7, None):
        answer = requests.put(f"{sandbox.url}/events/target", json={"url": url}, timeout=5)
        assert (answer.status_code, answer.json()["field"]) == (422, "url")


def test_a_connection_is_kept_over_many_requests(sandbox: RunningSandbox) -> None:
    host, port = sandbox.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    sockets = set()
    for order_id in range(1, 20):
        connection.request("POST", "/crm/orders", f'{{"order_id": {order_id}}}')
        sockets.add(id(connection.sock))
        assert connection.getresponse().read()
    connection.close()
    assert len(sockets) == 1


def test_a_capture_costs_less_than_two_answers_that_do_nothing(sandbox: RunningSandbox) -> None:
    """What it writes for each call must not make the outside world the bottleneck of what is tested against it.

    In its own processor time, and as a ratio: a slow or busy machine makes both longer.
    """
    from tests.lab.sandbox.test_faults import call

    def cpu_s(ask: Callable[[int], bool]) -> float:
        def now() -> float:
            fields = Path(f"/proc/{sandbox.process.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        began = now()
        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(ask, range(500)))
        return now() - began

    nothing = cpu_s(lambda _: requests.get(f"{sandbox.url}/healthz", timeout=10).ok)
    capture = cpu_s(lambda _: call(sandbox, "gateway").ok)
    assert capture < 2 * nothing
