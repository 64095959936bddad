"""The receiver as a piece of its own: other providers, other secrets, other followers, and its table from before."""

import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import stripe
from django.contrib.auth.models import Permission
from django.core.checks import run_checks
from django.db import DataError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest
from django.test import Client, RequestFactory

from outbox.models import OutboxMessage
from webhooks.incoming.errors import BadEvent
from webhooks.incoming.models import IncomingEvent
from webhooks.incoming.views import receiver

EVENT = {"id": "evt_1", "type": "payment_intent.succeeded"}

pytestmark = pytest.mark.django_db


def acme_signature(request: HttpRequest) -> None:
    """A provider that signs the body in a header of its own."""
    expected = hmac.new(b"acme", request.body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(request.headers.get("X-Acme-Signature", ""), expected):
        raise BadEvent("the X-Acme-Signature header does not match the body")


def acme_event(request: HttpRequest, event: dict[str, Any]) -> tuple[Any, Any]:
    """A provider whose id is in a header and whose type has another name."""
    return request.headers.get("X-Acme-Delivery"), event.get("event")


acme = receiver(provider="acme", verify=acme_signature, identify=acme_event)
seen: list[tuple[str, str]] = []


def follow(name: str, *, event_id: str) -> None:
    assert IncomingEvent.objects.filter(event_id=event_id).exists(), "called before the event is stored"
    assert connection.in_atomic_block, "called outside of the event's transaction"
    seen.append((name, event_id))


def follow_wrongly(name: str, *, event_id: str) -> None:
    raise DataError("of the follower's own")


@pytest.fixture(autouse=True)
def follower(settings: Any) -> Iterator[None]:
    settings.INCOMING_ON_EVENT = f"{__name__}.follow"
    seen.clear()
    yield
    seen.clear()


def send(
    *, event_id: str = "1", event: str = "sold", signature: str | None = None, **headers: str
) -> tuple[int, str]:
    body = json.dumps({"event": event}).encode()
    signed = hmac.new(b"acme", body, hashlib.sha256).hexdigest() if signature is None else signature
    given = {"X-Acme-Signature": signed, "X-Acme-Delivery": event_id, **headers}
    request = RequestFactory().post("/", body, content_type="application/json", headers=given)
    answer = acme(request)
    return answer.status_code, answer.content.decode()


def test_another_provider_is_added_with_two_functions() -> None:
    """One verifies the request, and one names the event."""
    assert [send()[0], send()[0], send(event_id="2")[0]] == [200, 200, 200]
    events = IncomingEvent.objects.order_by("event_id").values_list("provider", "event_id", "event_type")
    assert list(events) == [("acme", "1", "sold"), ("acme", "2", "sold")]
    assert seen == [("acme.event_received", "1"), ("acme.event_received", "2")]


def test_what_the_function_refuses_is_a_400() -> None:
    """With its reason; nothing is changed."""
    assert send(signature="bad") == (400, "the X-Acme-Signature header does not match the body")
    assert send(event_id="")[0] == 400
    assert not IncomingEvent.objects.exists()
    assert not seen


def test_one_id_of_two_providers_is_two_events() -> None:
    IncomingEvent.objects.create(provider="gateway", event_id="1", event_type="x", payload={})
    assert send()[0] == 200
    assert IncomingEvent.objects.count() == 2


def test_while_a_secret_is_replaced_either_is_taken_and_no_third(settings: Any) -> None:
    settings.STRIPE_WEBHOOK_SECRET = ["whsec_new", "whsec_old"]
    statuses = []
    for secret in ("whsec_new", "whsec_old", "whsec_other", ""):
        body = json.dumps(EVENT | {"id": f"evt_{secret}"})
        signature = stripe.WebhookSignature.generate_signature_header(body, secret, int(time.time()))
        headers = {"Stripe-Signature": signature}
        answer = Client().post("/webhooks/gateway", body, content_type="application/json", headers=headers)
        statuses.append(answer.status_code)
    assert statuses == [200, 200, 400, 400]


def test_without_a_follower_events_are_only_stored(settings: Any) -> None:
    """A check says that nothing follows."""
    del settings.INCOMING_ON_EVENT
    assert send()[0] == 200
    assert IncomingEvent.objects.count() == 1
    assert not OutboxMessage.objects.exists()
    assert "webhooks_incoming.W001" in {message.id for message in run_checks()}


@pytest.mark.parametrize("secret", ["", [], [""]])
def test_without_a_secret_a_check_says_that_every_event_is_refused(settings: Any, secret: Any) -> None:
    assert "webhooks_incoming.W002" not in {message.id for message in run_checks()}
    settings.STRIPE_WEBHOOK_SECRET = secret
    assert "webhooks_incoming.W002" in {message.id for message in run_checks()}


def test_a_follower_that_does_not_exist_is_a_check_error(settings: Any) -> None:
    settings.INCOMING_ON_EVENT = "outbox.emitt"
    assert "webhooks_incoming.E001" in {message.id for message in run_checks()}


def test_an_error_of_the_follower_is_not_the_events_fault(settings: Any) -> None:
    """Answered 400, the provider would give the event up."""
    settings.INCOMING_ON_EVENT = f"{__name__}.follow_wrongly"
    with pytest.raises(DataError):
        send()
    assert not IncomingEvent.objects.exists()


@pytest.mark.django_db(transaction=True)
class TestTable:
    @pytest.fixture(autouse=True)
    def latest(self) -> Iterator[None]:
        yield
        migrate(MigrationExecutor(connection).loader.graph.leaf_nodes())

    def test_events_and_permissions_of_the_release_before_are_kept(self) -> None:
        held = Permission.objects.get(codename="view_incomingevent").pk
        migrate([("webhooks_incoming", None), ("webhooks", "0001_initial")])
        assert Permission.objects.get(pk=held).content_type.app_label == "webhooks"
        insert_as_before("evt_1")
        migrate(MigrationExecutor(connection).loader.graph.leaf_nodes())
        assert Permission.objects.get(pk=held).content_type.app_label == "webhooks_incoming"
        # A process of the release before goes on beside a new one.
        insert_as_before("evt_2")
        assert list(IncomingEvent.objects.order_by("pk").values_list("event_id", flat=True)) == [
            "evt_1",
            "evt_2",
        ]

    def test_where_there_is_no_table_it_is_created(self) -> None:
        migrate([("webhooks_incoming", None)])
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE webhooks_incomingevent")
        migrate([("webhooks_incoming", "0001_initial")])
        assert [send()[0], send()[0]] == [200, 200]
        assert IncomingEvent.objects.count() == 1


def insert_as_before(event_id: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO webhooks_incomingevent (provider, event_id, event_type, payload, received_at)"
            " VALUES ('gateway', %s, 'x', '{}', now())",
            [event_id],
        )


def migrate(targets: list[tuple[str, str | None]]) -> None:
    MigrationExecutor(connection).migrate(targets)
