"""pytest fixtures: the sandbox as a real process.

`sandbox` is one process for the whole run, calm and with an empty ledger at the start of each test;
`sandbox_settings` also points Django's settings at it; `run_sandbox` is a process of one's own, to be killed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from lab.stack.stack import ROOT

WEBHOOK_SECRET = "whsec_of_the_tests"
API_KEY = "sk_test_of_the_tests"


@dataclass(frozen=True)
class RunningSandbox:
    """A sandbox that answers at `url`."""

    url: str
    smtp_host: str
    smtp_port: int
    process: subprocess.Popen[str]

    def faults(self, **services: Any) -> None:
        """Turn the dials: `faults(gateway={"error_rate": 1}, seed=7)`, `faults(**{"*": {"latency_ms": 50}})`.

        What is not named is calm again, so `faults()` ends every fault. Raises `AssertionError` with the
        sandbox's answer for an unknown dial.
        """
        answer = requests.put(f"{self.url}/faults", json=services, timeout=10)
        assert answer.status_code == 200, answer.text

    def bitten(self, service: str, dial: str) -> int:
        """How often the dial bit since the dials were last turned."""
        count: int = requests.get(f"{self.url}/faults/bitten", timeout=10).json()[service].get(dial, 0)
        return count

    def ledger(self, name: str, **only: Any) -> list[dict[str, Any]]:
        """The entries of /ledger/{name}: charges, refunds, shipments, crm, webhooks or mail.

        `order_id=` narrows charges, refunds, shipments and crm; `merchant=` narrows webhooks.
        """
        data: list[dict[str, Any]] = self._ledger(name, only)["data"]
        return data

    def summary(self, name: str, **only: Any) -> dict[str, Any]:
        """The totals of /ledger/{name} alone."""
        return self._ledger(name, only | {"summary": 1})

    def _ledger(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        answer = requests.get(f"{self.url}/ledger/{name}", params=asked, timeout=30)
        assert answer.status_code == 200, answer.text
        content: dict[str, Any] = answer.json()
        return content

    def send_events_to(self, app_url: str) -> None:
        """Post the gateway's events to `app_url`/webhooks/gateway (a live server) until `reset`."""
        requests.put(f"{self.url}/events/target", json={"url": app_url}, timeout=10).raise_for_status()

    def register_merchant(self, merchant: str | int, secret: str) -> None:
        """Have /merchants/{merchant}/webhooks refuse what `secret` did not sign."""
        requests.put(
            f"{self.url}/merchants/{merchant}", json={"secret": secret}, timeout=10
        ).raise_for_status()

    def reset(self) -> None:
        """Calm dials and an empty ledger."""
        self.faults()
        requests.delete(f"{self.url}/ledger", timeout=10).raise_for_status()


@contextmanager
def run_sandbox(directory: Path, *arguments: str) -> Iterator[RunningSandbox]:
    """A sandbox with its ledger in `directory`, stopped at the end if it still runs."""
    command = [sys.executable, "-m", "lab.sandbox", "--data", str(directory), *arguments]
    environment = os.environ | {"STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as process:
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()  # ends without a line if the process could not start
            assert ready.startswith("sandbox at "), (
                f"the sandbox did not start: {ready!r}, exit {process.poll()}"
            )
            url = ready.split()[2].rstrip("/")
            smtp = requests.get(f"{url}/healthz", timeout=10).json()["smtp"]
            yield RunningSandbox(url, smtp["host"], smtp["port"], process)
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


@pytest.fixture(scope="session")
def sandbox_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSandbox]:
    with run_sandbox(tmp_path_factory.mktemp("sandbox")) as running:
        yield running


@pytest.fixture
def sandbox(sandbox_process: RunningSandbox) -> RunningSandbox:
    """The run's sandbox, calm and empty."""
    sandbox_process.reset()
    return sandbox_process


@pytest.fixture
def sandbox_settings(sandbox: RunningSandbox, settings: Any) -> Iterator[RunningSandbox]:
    """The sandbox, with the app's settings pointing at it: gateway, warehouse, CRM and mail."""
    from notifications.conversation import drop_idle

    settings.STRIPE_API_BASE = sandbox.url
    settings.STRIPE_API_KEY = API_KEY
    settings.STRIPE_WEBHOOK_SECRET = WEBHOOK_SECRET
    settings.WAREHOUSE_URL = f"{sandbox.url}/warehouse"
    settings.CRM_URL = f"{sandbox.url}/crm"
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST = sandbox.smtp_host
    settings.EMAIL_PORT = sandbox.smtp_port
    settings.EMAIL_HOST_USER = settings.EMAIL_HOST_PASSWORD = ""
    settings.EMAIL_USE_TLS = settings.EMAIL_USE_SSL = False
    yield sandbox
    drop_idle()
