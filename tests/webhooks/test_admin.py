"""The admin shows what happened, lets no one rewrite it, and never shows a signing secret a second time."""

from typing import Any

import pytest
from django.test import Client

from webhooks.incoming.models import IncomingEvent
from webhooks.models import Delivery, Event, Subscription

pytestmark = pytest.mark.django_db

URL = "https://example.com/hook"


def test_the_secret_is_shown_when_the_subscription_is_made_and_never_again(admin_client: Client):
    form = {"customer_id": 1, "url": URL, "event_types": "[]", "is_active": "on"}
    answer = admin_client.post("/admin/webhooks/subscription/add/", form, follow=True)
    subscription = Subscription.objects.get()
    assert subscription.secret in answer.text
    assert "no-store" in answer["Cache-Control"]
    assert subscription.secret not in str(answer.cookies)
    assert "messages" not in admin_client.cookies

    for page in ("", f"{subscription.pk}/change/"):
        assert subscription.secret not in admin_client.get(f"/admin/webhooks/subscription/{page}").text


def test_saving_a_subscription_keeps_its_secret_and_its_address(admin_client: Client):
    subscription = Subscription.objects.create(customer_id=1, url=URL)
    form = {
        "customer_id": 2,
        "url": "https://evil.example",
        "secret": "x",
        "event_types": "[]",
        "is_active": "",
    }
    admin_client.post(f"/admin/webhooks/subscription/{subscription.pk}/change/", form)

    after = Subscription.objects.get()
    assert not after.is_active
    assert (after.customer_id, after.url, after.secret) == (1, URL, subscription.secret)


@pytest.mark.parametrize(
    ("url", "reason"),
    [("ftp://example.com", "scheme must be https"), ("https://a..b/", "is not a host name")],
)
def test_an_address_that_we_do_not_call_is_refused_in_the_form(admin_client: Client, url: str, reason: str):
    form = {"customer_id": 1, "url": url, "event_types": "[]"}
    assert reason in admin_client.post("/admin/webhooks/subscription/add/", form).text
    assert not Subscription.objects.exists()


@pytest.mark.parametrize("event_types", ['"order.completed"', '{"order.completed": 1}', "[1]", '[""]'])
def test_a_filter_that_is_no_list_of_names_is_refused(admin_client: Client, event_types: str):
    """In the form."""
    form = {"customer_id": 1, "url": URL, "event_types": event_types}
    assert "list of event names" in admin_client.post("/admin/webhooks/subscription/add/", form).text
    assert not Subscription.objects.exists()


def test_what_happened_can_be_looked_at_but_not_edited(admin_client: Client):
    rows = [
        Event.objects.create(event_type="order.completed", order_id=1, customer_id=1, payload={}),
        Delivery.objects.create(event_id="evt_1", endpoint=URL, event_type="order.completed"),
        IncomingEvent.objects.create(event_id="evt_1", event_type="charge.refunded", payload={}),
    ]
    for row in rows:
        page = f"/admin/{row._meta.app_label}/{row._meta.model_name}/"
        assert str(row.event_id) in admin_client.get(page).text
        assert admin_client.get(f"{page}{row.pk}/change/").status_code == 200
        assert admin_client.post(f"{page}{row.pk}/change/", {"event_id": "x"}).status_code == 403
        assert admin_client.get(f"{page}add/").status_code == 403


def test_no_page_shows_secrets_of_addresses_errors_or_payloads(admin_client: Client) -> None:
    address = f"{URL}?token=hunter2"
    Subscription.objects.create(customer_id=1, url=address)
    delivery = Delivery.objects.create(
        event_id="e1", event_type="t", endpoint=address, last_error="token=hunter2"
    )
    secret = {"id": "pi_1", "client_secret": "hunter2"}
    received = IncomingEvent.objects.create(
        event_id="e1", event_type="t", payload={"data": {"object": secret}}
    )

    for model in ("webhooks/subscription", "webhooks/delivery", "webhooks_incoming/incomingevent"):
        page = f"/admin/{model}/"
        row = admin_client.get(page).context["cl"].result_list[0]
        shown = admin_client.get(page).text + admin_client.get(f"{page}{row.pk}/change/").text
        assert "hunter2" not in shown, model
    assert "pi_1" in shown
    received.refresh_from_db()
    delivery.refresh_from_db()
    assert (delivery.endpoint, received.payload["data"]["object"]) == (address, secret)


def test_without_a_function_that_masks_it_no_payload_is_shown(admin_client: Client, settings: Any) -> None:
    settings.INCOMING_MASKED = ""
    event = IncomingEvent.objects.create(event_id="e1", event_type="t", payload={"id": "pi_1"})
    shown = admin_client.get(f"/admin/webhooks_incoming/incomingevent/{event.pk}/change/").text
    assert "(not shown)" in shown
    assert "pi_1" not in shown
