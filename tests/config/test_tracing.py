"""`TRACING=1` on real processes: one unbroken chain of spans from a POST to the webhook that follows from it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from orders.models import ApiKey
from orders.seed import seed_demo
from outbox.testing import clear
from tests.orders.conftest import place
from tests.support.processes import await_, relay, web, worker
from webhooks.models import Subscription


class Receiver(ThreadingHTTPServer):
    """A collector of OpenTelemetry, at /v1/traces, and a merchant's endpoint, at /hook.

    `spans`: by span id: name, id of the parent, id of the trace, name of the service. `hooks`: headers `traceparent`.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.spans: dict[str, tuple[str, str, str, str]] = {}
        self.hooks: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def collect(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = [a.value.string_value for a in resource.resource.attributes if a.key == "service.name"]
            for scope in resource.scope_spans:
                for span in scope.spans:
                    ids = span.parent_span_id.hex(), span.trace_id.hex()
                    self.spans[span.span_id.hex()] = (span.name, *ids, *names)


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/traces":
            self.server.collect(body)
        else:
            self.server.hooks.append(self.headers.get("traceparent", ""))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@contextmanager
def receiving() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.slow
def test_one_chain_of_spans_leads_from_the_post_to_the_webhook(clean: None) -> None:
    seed_demo()
    order = place()
    clear()
    key = ApiKey.issue("test")[1]
    with receiving() as receiver:
        Subscription.objects.create(customer_id=1, url=f"{receiver.url}/hook")

        def env(name: str) -> dict[str, str]:
            told = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
            return {"TRACING": "1", "OTEL_SERVICE_NAME": name, **told}

        with (
            web(env=env("web")) as (_, url),
            relay(env=env("relay")),
            worker(concurrency=1, env=env("worker")),
        ):
            answer = requests.post(
                f"{url}/api/orders/{order.pk}/cancel", headers={"Authorization": f"Bearer {key}"}, timeout=10
            )
            assert answer.status_code == 200
            await_(lambda: receiver.hooks, "the webhook")
            (traceparent,) = receiver.hooks
            _, trace_id, span_id, _ = traceparent.split("-")
            chain = []
            while span_id:
                await_(lambda: span_id in receiver.spans, f"the span above {chain}")  # noqa: B023
                name, span_id, trace, service = receiver.spans[span_id]
                chain.append((service, name))
                assert trace == trace_id
    assert chain == [
        ("worker", "process webhooks.tasks.deliver"),
        ("worker", "process webhooks.tasks.publish_event"),
        ("web", "POST api/orders/<int:order_id>/cancel"),
    ]
