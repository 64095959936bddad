"""Bodies without a Content-Length, sent to a real gunicorn: they arrive, or are refused."""

import json
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import requests
import stripe
from django.test import Client

from orders.api.parsing import MAX_BODY_BYTES
from orders.models import ApiKey, Order
from tests.orders.conftest import body, place
from tests.orders.test_api import problem
from tests.support.processes import web
from webhooks.incoming.models import IncomingEvent

SECRET = "whsec_of_this_test"
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def url(django_db_setup: None) -> Iterator[str]:
    with web(env={"STRIPE_WEBHOOK_SECRET": SECRET}) as (_, address):
        yield address


@pytest.fixture
def authorization(busy_shop: None) -> dict[str, str]:
    return {"Authorization": f"Bearer {ApiKey.issue('test')[1]}"}


def chunked(url: str, sent: bytes, headers: dict[str, str]) -> requests.Response:
    """POST in chunks, of which requests makes one of each piece of an iterator."""
    pieces = (sent[at : at + 65_536] for at in range(0, len(sent), 65_536))
    answer = requests.post(
        url, data=pieces, headers={"Content-Type": "application/json", **headers}, timeout=30
    )
    assert answer.request.headers["Transfer-Encoding"] == "chunked"
    return answer


def test_order_sent_in_chunks_is_placed(url: str, authorization: dict[str, str]) -> None:
    sent, headers = json.dumps(body()), authorization | {"Idempotency-Key": "key-1"}
    answer = chunked(f"{url}/api/orders", sent.encode(), headers)
    assert answer.status_code == 202, answer.text
    whole = requests.post(f"{url}/api/orders", json=body(), headers=headers, timeout=30)
    assert whole.text == answer.text


def test_reason_sent_in_chunks_is_noted(url: str, authorization: dict[str, str]) -> None:
    order = place()
    answer = chunked(f"{url}/api/orders/{order.pk}/cancel", b'{"reason": "too late"}', authorization)
    assert answer.status_code == 200, answer.text
    assert "too late" in order.transitions.get(to_status="cancelled").note


def test_event_of_the_gateway_sent_in_chunks_is_stored(url: str, busy_shop: None) -> None:
    event = json.dumps({"id": "evt_1", "type": "payment_intent.created"})
    signature = stripe.WebhookSignature.generate_signature_header(event, SECRET, int(time.time()))
    answer = chunked(f"{url}/webhooks/gateway", event.encode(), {"Stripe-Signature": signature})
    assert answer.status_code == 200, answer.text
    assert IncomingEvent.objects.get().event_id == "evt_1"


@pytest.mark.parametrize(
    "size", [MAX_BODY_BYTES + 1, MEGABYTE + 1], ids=["above the API's", "above Django's"]
)
def test_chunks_over_the_limit_are_a_413(url: str, authorization: dict[str, str], size: int) -> None:
    sent = json.dumps(body()).encode().ljust(size)
    answer = chunked(f"{url}/api/orders", sent, authorization | {"Idempotency-Key": "key-1"})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert not Order.objects.exists()


@pytest.mark.parametrize("chunks", [b"5\r\nhello", b"nonsense\r\n", b"2\r\n{}}\r\n0\r\n\r\n"])
def test_what_is_no_chunk_is_a_400(url: str, authorization: dict[str, str], chunks: bytes) -> None:
    key = authorization["Authorization"]
    head = f"POST /api/orders HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {key}\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), timeout=30) as peer:
        peer.sendall(head.encode() + chunks)
        peer.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: peer.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert b"malformed_chunks" in answer


def test_chunks_that_the_server_does_not_take_apart_are_a_411(client: Client) -> None:
    answer = client.post(
        "/api/orders", b"{}", "application/json", CONTENT_LENGTH="", HTTP_TRANSFER_ENCODING="chunked"
    )
    problem(answer, 411)
