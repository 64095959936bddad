"""HTTP while the database cannot write: a 503 that asks for the same request again, and a session that is not kept."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import stripe
from django.conf import settings
from django.db import connection
from django.test import Client

from orders.models import ApiKey, Order
from tests.orders.conftest import Caller, body
from tests.support.servers import refusing
from webhooks.incoming.models import IncomingEvent

pytestmark = pytest.mark.django_db(transaction=True)


def event() -> Any:
    text = json.dumps({"id": "evt_1", "type": "x", "data": {"object": {}}})
    header = stripe.WebhookSignature.generate_signature_header(
        text, settings.STRIPE_WEBHOOK_SECRET, int(time.time())
    )
    return Client(raise_request_exception=False).post(
        "/webhooks/gateway", text, content_type="application/json", headers={"Stripe-Signature": header}
    )


def demote() -> None:
    """This thread's session alone, as one to a primary that was demoted under it."""
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")


def assert_unavailable(answer: Any) -> None:
    assert (answer.status_code, answer["Content-Type"]) == (503, "application/problem+json")
    assert int(answer["Retry-After"]) >= 1
    assert answer.json()["code"] == "database_unavailable"


@pytest.mark.usefixtures("busy_shop")
def test_an_order_at_a_demoted_primary_is_a_503() -> None:
    """The next order gets a session at another server."""
    api = Caller(ApiKey.issue("test")[1])
    demote()
    assert_unavailable(api.post(body()))
    assert api.post(body()).status_code == 202
    assert Order.objects.count() == 1


def test_an_event_at_a_demoted_primary_is_a_503() -> None:
    """It is taken when it comes again."""
    demote()
    assert_unavailable(event())
    assert event().status_code == 200


@pytest.mark.usefixtures("busy_shop")
def test_an_order_without_disk_space_is_a_503() -> None:
    """It is placed once there is space."""
    api = Caller(ApiKey.issue("test")[1])
    with refusing("orders_order", "53100"):
        assert_unavailable(api.post(body()))
    assert api.post(body()).status_code == 202
    with refusing(IncomingEvent._meta.db_table, "53100"):
        assert_unavailable(event())
