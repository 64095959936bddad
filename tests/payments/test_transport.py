"""payments/gateway/transport.py: every wait has an end, and nothing is followed or shared that must not be."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest
from urllib3.connectionpool import HTTPConnectionPool

from payments.gateway import transport
from payments.gateway.client import PaymentGateway
from payments.gateway.errors import GatewayUnavailable
from tests.lab.sandbox_fixture import RunningSandbox


@pytest.mark.promise("P4", "the gateway hangs without closing its connections", "the call is given up")
def test_a_silent_gateway_is_given_up(sandbox_settings: RunningSandbox, mocker: Any) -> None:
    mocker.patch.object(transport, "READ_SECONDS", 0.2)
    sandbox_settings.faults(gateway={"hang_rate": 1, "hang_ms": 5000})
    began = time.monotonic()
    with pytest.raises(GatewayUnavailable, match="Timeout"):
        PaymentGateway.charge(1, 500)
    assert time.monotonic() - began < 3


def test_an_answer_that_drips_is_given_up_although_it_is_never_silent(
    sandbox_settings: RunningSandbox, mocker: Any
) -> None:
    mocker.patch.object(transport, "TOTAL_SECONDS", 0.5)
    sandbox_settings.faults(gateway={"slow_drip_rate": 1, "slow_drip_ms": 8000})
    began = time.monotonic()
    with pytest.raises(GatewayUnavailable, match="not complete"):
        PaymentGateway.charge(1, 500)
    assert time.monotonic() - began < 4


def test_a_redirect_is_not_followed(sandbox_settings: RunningSandbox) -> None:
    sandbox_settings.faults(gateway={"redirect_rate": 1})
    with pytest.raises(GatewayUnavailable, match="redirects"):
        PaymentGateway.charge(1, 500)
    assert sandbox_settings.ledger("charges") == []


def test_a_gateway_that_is_down_is_unavailable(settings: Any) -> None:
    settings.STRIPE_API_BASE = "http://127.0.0.1:9"
    with pytest.raises(GatewayUnavailable, match="ConnectionError"):
        PaymentGateway.charge(1, 500)


def test_an_entry_in_netrc_does_not_replace_the_key(
    sandbox_settings: RunningSandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert PaymentGateway.charge(1, 500).status == "succeeded"


def test_one_connection_serves_many_calls(sandbox_settings: RunningSandbox, mocker: Any) -> None:
    PaymentGateway.charge(1, 500)
    opened = mocker.spy(HTTPConnectionPool, "_new_conn")
    for _ in range(5):
        PaymentGateway.charge(1, 500)
    assert opened.call_count == 0


_FORKS = """
import os, django
django.setup()
from payments.gateway import transport
ours = transport.client()
assert transport.client() is ours
if os.fork() == 0:
    os._exit(0 if transport.client() is not ours else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_a_forked_worker_does_not_share_its_parents_connections() -> None:
    subprocess.run([sys.executable, "-c", _FORKS], check=True, timeout=60)
