"""A request has one id, and stays in its trace, from its answer to the webhook that follows from it; and a line in the log."""

from __future__ import annotations

import logging
from unittest.mock import MagicMock

import pytest
from django.test import Client
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pytest_mock import MockerFixture

import outbox
from common.request_id import trace_context
from dlq.masking import MASK
from notifications.errors import MailNotSent
from outbox import report
from outbox.models import OutboxMessage
from outbox.testing import drain
from tests.orders.conftest import Caller, api, body, charge, place, quiet, shop
from webhooks.models import Subscription

__all__ = ["api", "charge", "shop"]

pytestmark = pytest.mark.django_db

UUID_PATH = "/orders/0af76519-16cd-43dd-8448-eb211c80319c"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("path", ["/healthz", "/nothing", "/api/orders", "/admin/login/"])
def test_a_well_formed_id_is_answered_and_any_other_one_is_replaced(path: str) -> None:
    client = Client()

    def answered(given: str) -> str:
        return str(client.get(path, headers={"X-Request-ID": given})["X-Request-ID"])

    if path == "/healthz":  # the probes are ahead of everything else
        assert "X-Request-ID" not in client.get(path)
        return
    assert answered("req-1.a~b") == "req-1.a~b"
    made = {answered(given) for given in ("", "a b", "a\tb", "<script>", "\u00fc", "a" * 129)}
    assert len(made) == 6
    assert all(len(each) == 32 and each.isalnum() for each in made)


def test_it_goes_with_every_message_into_log_and_webhook(
    api: Caller, charge: MagicMock, mocker: MockerFixture
) -> None:
    quiet(mocker)
    logged = mocker.spy(report.log, "log")
    mocker.patch("notifications.services.EmailService.send_receipt", side_effect=[MailNotSent("busy"), None])
    post = mocker.patch("webhooks.transport.post", return_value=MagicMock(status_code=200))
    Subscription.objects.create(customer_id=1, url="https://shop.example/hook")
    headers = {"Idempotency-Key": "k", "X-Request-ID": "req-7", "traceparent": TRACE}
    api.client.post("/api/orders", body(), "application/json", headers=headers)
    drain()
    messages = OutboxMessage.objects.all()
    assert len(messages) > 8
    assert {message.headers["request_id"] for message in messages} == {"req-7"}
    assert {message.headers["traceparent"] for message in messages} == {TRACE}
    assert post.call_args.kwargs["headers"]["X-Request-ID"] == "req-7"
    assert post.call_args.kwargs["headers"]["traceparent"] == TRACE
    assert logged.call_args.kwargs["extra"]["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    (_, form, *values) = logged.call_args.args
    assert (form % tuple(values)).endswith(f"(correlation {messages[0].correlation_id}, request req-7)")


def test_a_malformed_header_of_a_producer_is_not_sent_on(
    shop: None, charge: MagicMock, mocker: MockerFixture
) -> None:
    quiet(mocker)
    post = mocker.patch("webhooks.transport.post", return_value=MagicMock(status_code=200))
    Subscription.objects.create(customer_id=1, url="https://shop.example/hook")
    with outbox.in_request("a\r\nX-Other: b", f"{TRACE}\r\nX-Other: b"):
        outbox.emit("order.placed", correlation_id="c", order_id=place().pk)
    drain()
    assert not {"X-Request-ID", "traceparent"} & post.call_args.kwargs["headers"].keys()


def test_without_a_request_there_is_no_header(shop: None) -> None:
    place()
    assert [message.headers for message in OutboxMessage.objects.all()] == [{}, {}]


NO_TRACE_CONTEXTS = (
    "",
    TRACE.upper(),
    f"ff{TRACE[2:]}",
    f"{TRACE}-more",
    f"01{TRACE[2:]}more",
    f"01{TRACE[2:-1]}",
    f"00-{'0' * 32}-b7ad6b7169203331-01",
    f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
    f"01-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
)
LATER_VERSIONS = (f"01{TRACE[2:]}", f"cc{TRACE[2:]}-more", f"01{TRACE[2:-2]}0b-", f"fe{TRACE[2:-2]}ff-a-b")


@pytest.mark.parametrize("given", NO_TRACE_CONTEXTS)
def test_a_malformed_trace_context_is_not_taken_and_none_is_invented(api: Caller, given: str) -> None:
    headers = {"Idempotency-Key": "k", "X-Request-ID": "req-7", "traceparent": given}
    api.client.post("/api/orders", body(), "application/json", headers=headers)
    assert {frozenset(message.headers) for message in OutboxMessage.objects.all()} == {
        frozenset({"request_id"})
    }


@pytest.mark.parametrize("given", LATER_VERSIONS)
def test_a_trace_context_of_a_later_version_goes_on_as_version_00(api: Caller, given: str) -> None:
    headers = {"Idempotency-Key": "k", "traceparent": given}
    api.client.post("/api/orders", body(), "application/json", headers=headers)
    assert {message.headers["traceparent"] for message in OutboxMessage.objects.all()} == {TRACE}


@pytest.mark.parametrize("given", [TRACE, *LATER_VERSIONS, *NO_TRACE_CONTEXTS])
def test_what_is_a_trace_context_does_not_depend_on_tracing(given: str) -> None:
    """With `TRACING=1` OpenTelemetry reads the header."""
    read = TraceContextTextMapPropagator().extract({"traceparent": given}, context=Context())
    trace_id = trace.get_current_span(read).get_span_context().trace_id
    assert trace_context(given)[3:35] == (f"{trace_id:032x}" if trace_id else "")


@pytest.mark.parametrize(
    ("path", "shown", "route"),
    [
        ("/api/orders/17?token=hunter2", "/api/orders/17", "api/orders/<int:order_id>"),
        ("/a%0AERROR%20b", "/a%0AERROR%20b", ""),
        (f"/reset/MQ/d3hx5f-{'0a' * 16}/?token=hunter2", f"/reset/MQ/{MASK}/", ""),
        ("/invite/Zm9vYmFyYmF6cXV4MTIz%3D", f"/invite/{MASK}", ""),
        ("/a-long-name-without-a-number/7", "/a-long-name-without-a-number/7", ""),
        (UUID_PATH, UUID_PATH, ""),
    ],
)
def test_each_request_has_one_line_in_the_log(
    api: Caller, caplog: pytest.LogCaptureFixture, path: str, shown: str, route: str
) -> None:
    """Without its query, and no client can begin another line."""
    with caplog.at_level(logging.INFO):
        assert (
            api.client.get(path, headers={"X-Request-ID": "req-7", "traceparent": TRACE}).status_code == 404
        )
    (line,) = caplog.records
    fields = vars(line)
    assert line.getMessage() == f"GET {shown} 404 ({fields['duration_s']:.3f} s, request req-7)"
    assert (
        fields
        | {
            "method": "GET",
            "path": shown,
            "route": route,
            "status": 404,
            "request_id": "req-7",
            "trace_id": TRACE[3:35],
        }
        == fields
    )
