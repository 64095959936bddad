"""A dispute's life at the gateway, as the official client and the receiver of its events see it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
import stripe

from tests.lab.sandbox.conftest import App, order
from tests.lab.sandbox_fixture import RunningSandbox


def disputed(gateway: stripe.StripeClient, card: str = "pm_card_createDispute") -> Any:
    """A payment that its customer disputes, and the dispute."""
    intent = gateway.v1.payment_intents.create(order(3, card=card, confirm=True))
    [dispute] = gateway.v1.disputes.list({"payment_intent": intent.id, "expand": ["data.charge"]}).data
    return intent, dispute


def refund(gateway: stripe.StripeClient, intent: Any) -> Any:
    return gateway.v1.refunds.create({"payment_intent": intent.id})


def test_disputed_charge_cannot_be_refunded_until_the_dispute_is_won(gateway: stripe.StripeClient) -> None:
    intent, dispute = disputed(gateway)
    assert (dispute.status, dispute.reason, dispute.amount) == ("needs_response", "fraudulent", 4990)
    assert dispute.charge.disputed
    for _ in range(2):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            refund(gateway, intent)
        assert (refused.value.http_status, refused.value.code) == (400, "charge_disputed")
    won = gateway.v1.disputes.update(dispute.id, {"evidence": {"uncategorized_text": "winning_evidence"}})
    assert won.status == "won"
    assert refund(gateway, intent).status == "succeeded"


@pytest.mark.parametrize("ending", ["close", "losing_evidence"])
def test_lost_dispute_is_lost_for_good(gateway: stripe.StripeClient, ending: str) -> None:
    intent, dispute = disputed(gateway, "pm_card_createDisputeProductNotReceived")
    if ending == "close":
        lost = gateway.v1.disputes.close(dispute.id)
    else:
        lost = gateway.v1.disputes.update(dispute.id, {"evidence": {"uncategorized_text": ending}})
    assert lost.status == "lost"
    with pytest.raises(stripe.InvalidRequestError, match="already closed"):
        gateway.v1.disputes.close(dispute.id)
    with pytest.raises(stripe.InvalidRequestError, match="charged back"):
        refund(gateway, intent)


def test_inquiry_takes_no_money_and_allows_a_refund(gateway: stripe.StripeClient) -> None:
    intent, dispute = disputed(gateway, "pm_card_createDisputeInquiry")
    assert (dispute.status, dispute.is_charge_refundable) == ("warning_needs_response", True)
    assert refund(gateway, intent).status == "succeeded"


def test_each_step_of_a_dispute_is_a_signed_event(
    gateway: stripe.StripeClient, sandbox: RunningSandbox, app: App
) -> None:
    intent = gateway.v1.payment_intents.create(order(confirm=True))
    sandbox.send_events_to(app.url)
    opened = requests.post(f"{sandbox.url}/disputes", json={"payment_intent": intent.id}, timeout=5)
    gateway.v1.disputes.update(opened.json()["id"], {"evidence": {"uncategorized_text": "winning_evidence"}})
    kinds = {json.loads(body)["type"] for _, body in app.wait_for(6)}
    assert {kind.removeprefix("charge.dispute.") for kind in kinds} == {
        "payment_intent.succeeded",
        "created",
        "funds_withdrawn",
        "updated",
        "closed",
        "funds_reinstated",
    }


def test_payment_without_a_charge_cannot_be_disputed(sandbox: RunningSandbox) -> None:
    answer = requests.post(f"{sandbox.url}/disputes", json={"payment_intent": "pi_1"}, timeout=5)
    assert answer.status_code == 404
