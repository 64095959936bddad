"""A request has one id, from its answer to the webhook that follows from it."""

from __future__ import annotations

from unittest.mock import MagicMock

import pytest
from django.test import Client
from pytest_mock import MockerFixture

import outbox
from notifications.errors import MailNotSent
from outbox import report
from outbox.models import OutboxMessage
from outbox.testing import drain
from tests.orders.conftest import Caller, api, body, charge, place, quiet, shop
from webhooks.models import Subscription

__all__ = ["api", "charge", "shop"]

pytestmark = pytest.mark.django_db


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
    api.client.post(
        "/api/orders", body(), "application/json", headers={"Idempotency-Key": "k", "X-Request-ID": "req-7"}
    )
    drain()
    messages = OutboxMessage.objects.all()
    assert len(messages) > 8
    assert {message.headers["request_id"] for message in messages} == {"req-7"}
    assert post.call_args.kwargs["headers"]["X-Request-ID"] == "req-7"
    (_, form, *values) = logged.call_args.args
    assert (form % tuple(values)).endswith(f"(correlation {messages[0].correlation_id}, request req-7)")


def test_a_malformed_header_of_a_producer_is_not_sent_on(
    shop: None, charge: MagicMock, mocker: MockerFixture
) -> None:
    quiet(mocker)
    post = mocker.patch("webhooks.transport.post", return_value=MagicMock(status_code=200))
    Subscription.objects.create(customer_id=1, url="https://shop.example/hook")
    with outbox.in_request("a\r\nX-Other: b"):
        outbox.emit("order.placed", correlation_id="c", order_id=place().pk)
    drain()
    assert "X-Request-ID" not in post.call_args.kwargs["headers"]


def test_without_a_request_there_is_no_header(shop: None) -> None:
    place()
    assert all("request_id" not in message.headers for message in OutboxMessage.objects.all())
