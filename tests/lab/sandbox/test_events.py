"""The gateway tells the app what happened: signed, until it is heard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests
import stripe

from tests.lab.sandbox.conftest import App, gateway_at, order
from tests.lab.sandbox_fixture import WEBHOOK_SECRET, RunningSandbox, run_sandbox


def opened(post: tuple[str, bytes]) -> Any:
    """The event, after the official client has verified its signature."""
    return stripe.Webhook.construct_event(post[1], post[0], WEBHOOK_SECRET)


@pytest.fixture
def heard(sandbox: RunningSandbox, app: App) -> App:
    sandbox.send_events_to(app.url)
    return app


def test_a_capture_a_decline_and_a_refund_each_post_a_signed_event(
    gateway: stripe.StripeClient, heard: App
) -> None:
    intent = gateway.v1.payment_intents.create(order(7, confirm=True))
    [succeeded] = map(opened, heard.wait_for(1))
    assert succeeded.type == "payment_intent.succeeded"
    assert succeeded.data.object.id == intent.id
    assert succeeded.data.object.metadata["order_id"] == "7"

    with pytest.raises(stripe.CardError):
        gateway.v1.payment_intents.create(order(card="pm_card_visa_chargeDeclined", confirm=True))
    failed = opened(heard.wait_for(2)[1])
    assert failed.type == "payment_intent.payment_failed"
    assert failed.data.object.last_payment_error.code == "card_declined"

    gateway.v1.refunds.create({"payment_intent": intent.id, "amount": 990})
    refunded = opened(heard.wait_for(3)[2])
    assert refunded.type == "charge.refunded"
    assert (refunded.data.object.payment_intent, refunded.data.object.amount_refunded) == (intent.id, 990)


def test_another_secret_does_not_open_an_event(gateway: stripe.StripeClient, heard: App) -> None:
    gateway.v1.payment_intents.create(order(confirm=True))
    [(signature, body)] = heard.wait_for(1)
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(body, signature, "whsec_other")
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(body.replace(b"4990", b"4991"), signature, WEBHOOK_SECRET)


def test_an_event_is_posted_again_until_the_app_answers_2xx(
    gateway: stripe.StripeClient, sandbox: RunningSandbox, heard: App
) -> None:
    heard.answers[:] = [500, 302]
    gateway.v1.payment_intents.create(order(confirm=True))
    ids = {opened(post).id for post in heard.wait_for(3)}
    assert len(ids) == 1


def test_the_duplicate_dial_posts_an_event_twice(
    gateway: stripe.StripeClient, sandbox: RunningSandbox, heard: App
) -> None:
    sandbox.faults(gateway={"duplicate_event_rate": 1})
    gateway.v1.payment_intents.create(order(confirm=True))
    first, second = (opened(post) for post in heard.wait_for(2))
    assert first.id == second.id
    assert sandbox.bitten("gateway", "duplicate_event_rate") == 1


def test_events_are_listed_for_a_receiver_that_missed_them(
    gateway: stripe.StripeClient, sandbox: RunningSandbox
) -> None:
    intent = gateway.v1.payment_intents.create(order(confirm=True))
    gateway.v1.refunds.create({"payment_intent": intent.id})
    listed = gateway.v1.events.list({"created": {"gte": intent.created}})
    assert [event.type for event in listed.data] == ["charge.refunded", "payment_intent.succeeded"]
    [succeeded] = gateway.v1.events.list({"type": "payment_intent.succeeded"}).data
    assert gateway.v1.events.retrieve(succeeded.id) == succeeded


def test_a_refused_or_replayed_request_makes_no_event(
    gateway: stripe.StripeClient, sandbox: RunningSandbox
) -> None:
    for _ in range(2):
        gateway.v1.payment_intents.create(order(confirm=True), options={"idempotency_key": "k"})
    with pytest.raises(stripe.InvalidRequestError):
        gateway.v1.payment_intents.create(order(card="pm_unknown", confirm=True))
    assert len(gateway.v1.events.list().data) == 1


def test_an_event_outlives_the_death_of_the_gateway(app: App, tmp_path: Path) -> None:
    with run_sandbox(tmp_path) as silent:
        intent = gateway_at(silent.url).v1.payment_intents.create(order(confirm=True))
        silent.process.kill()
        silent.process.wait(timeout=10)
    with run_sandbox(tmp_path, "--app-url", app.url) as speaking:
        [post] = app.wait_for(1)
        assert json.loads(post[1])["data"]["object"]["id"] == intent.id
        assert requests.get(f"{speaking.url}/events/target", timeout=5).json() == {"url": app.url}
