"""The official clients, pointed at the sandbox."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import requests
import stripe

from tests.lab.sandbox_fixture import API_KEY, RunningSandbox


@pytest.fixture
def gateway(sandbox: RunningSandbox) -> stripe.StripeClient:
    """The official client without retries of its own: a test sees each answer."""
    return gateway_at(sandbox.url)


def gateway_at(url: str, *, timeout_s: float = 5) -> stripe.StripeClient:
    # The client would keep its session per thread, beyond the test; a session of one's own is closed with it.
    http = stripe.RequestsClient(timeout=timeout_s, session=requests.Session())
    return stripe.StripeClient(API_KEY, base_addresses={"api": url}, max_network_retries=0, http_client=http)


def order(order_id: int = 1, *, card: str = "pm_card_visa", **more: Any) -> Any:
    """The parameters of a payment of 49.90 for an order."""
    return {
        "amount": 4990,
        "currency": "eur",
        "payment_method": card,
        "metadata": {"order_id": str(order_id)},
        **more,
    }


def key(name: str) -> Any:
    """The request options that carry an Idempotency-Key."""
    return {"idempotency_key": name}


@dataclass
class App:
    """Stands where the app is: takes events, answers what `answers` says (then 200), and keeps what came."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    received: list[tuple[str, bytes]] = field(default_factory=list)
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def wait_for(self, count: int) -> list[tuple[str, bytes]]:
        """The (signature, body) of the first `count` posts; fails when they do not come."""
        with self.arrived:
            came = self.arrived.wait_for(lambda: len(self.received) >= count, timeout=10)
            assert came, f"{len(self.received)} of {count} events came"
            return list(self.received)


@pytest.fixture
def app() -> Iterator[App]:
    running = App()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with running.arrived:
                running.received.append((self.headers["Stripe-Signature"], body))
                status = running.answers.pop(0) if running.answers else 200
                running.arrived.notify_all()
            self.send_response(status if self.path == "/webhooks/gateway" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        running.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield running
        server.shutdown()
        thread.join()
