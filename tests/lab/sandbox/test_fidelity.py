"""What the official client builds on: expanded objects, error objects on every path, a Request-Id on every answer."""

from __future__ import annotations

from typing import Any

import pytest
import requests
import stripe

from tests.lab.sandbox.conftest import gateway_at, key, order
from tests.lab.sandbox_fixture import API_KEY, RunningSandbox

AUTHORIZED = {"Authorization": f"Bearer {API_KEY}"}


def test_what_is_asked_to_be_expanded_is_an_object(gateway: stripe.StripeClient) -> None:
    created = gateway.v1.payment_intents.create(
        order(confirm=True, expand=["latest_charge", "payment_method"])
    )
    charge, card = created.latest_charge, created.payment_method
    assert isinstance(charge, stripe.Charge)
    assert isinstance(card, stripe.PaymentMethod)
    assert (charge.amount, charge.payment_intent, card.id) == (4990, created.id, "pm_card_visa")

    again = gateway.v1.payment_intents.retrieve(created.id, {"expand": ["latest_charge.payment_intent"]})
    assert isinstance(again.latest_charge, stripe.Charge)
    assert isinstance(again.latest_charge.payment_intent, stripe.PaymentIntent)
    assert again.latest_charge.payment_intent.latest_charge == charge.id

    [listed] = gateway.v1.payment_intents.list({"expand": ["data.latest_charge"]}).data
    assert isinstance(listed.latest_charge, stripe.Charge)

    refund = gateway.v1.refunds.create({"payment_intent": created.id, "expand": ["charge"]})
    assert isinstance(refund.charge, stripe.Charge)
    assert refund.charge.refunded
    # Stored and told of in events as it was: what is expanded is the answer.
    assert gateway.v1.refunds.retrieve(refund.id).charge == charge.id


def test_what_is_not_there_yet_stays_empty_when_it_is_expanded(gateway: stripe.StripeClient) -> None:
    assert gateway.v1.payment_intents.create(order(expand=["latest_charge"])).latest_charge is None


def test_answer_repeated_under_its_key_is_expanded_as_it_was(gateway: stripe.StripeClient) -> None:
    params = order(confirm=True, expand=["latest_charge"])
    first = gateway.v1.payment_intents.create(params, options=key("k"))
    assert gateway.v1.payment_intents.create(params, options=key("k")) == first


@pytest.mark.parametrize("name", ["colour", "id", "latest_charge.colour", "data.latest_charge"])
def test_what_cannot_be_expanded_is_a_400_and_nothing_is_done(
    gateway: stripe.StripeClient, name: str
) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="This property cannot be expanded") as refused:
        gateway.v1.payment_intents.create(order(confirm=True, expand=[name]))
    assert (refused.value.http_status, refused.value.param) == (400, "expand")
    assert gateway.v1.payment_intents.list().data == []


@pytest.mark.parametrize(
    "call",
    [
        lambda gateway: gateway.v1.customers.create({"name": "Ada"}),
        lambda gateway: gateway.v1.customers.retrieve("cus_1"),
        lambda gateway: gateway.v1.payment_intents.update("pi_1", {"description": "new"}),
        lambda gateway: gateway.v1.subscriptions.cancel("sub_1"),
    ],
)
def test_unknown_route_is_the_error_that_the_client_understands(
    gateway: stripe.StripeClient, call: Any
) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="Unrecognized request URL") as refused:
        call(gateway)
    assert refused.value.http_status == 404
    assert refused.value.error.type == "invalid_request_error"
    assert refused.value.request_id


@pytest.mark.parametrize("path", ["charges/ch_1", "refunds/re_1", "events/evt_1", "payment_intents/pi_1"])
def test_unknown_id_is_a_404_that_names_it(sandbox: RunningSandbox, path: str) -> None:
    answer = requests.get(f"{sandbox.url}/v1/{path}", headers=AUTHORIZED, timeout=5)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (
        404,
        "invalid_request_error",
        "resource_missing",
    )
    assert path.rpartition("/")[2] in error["message"]
    assert error["param"] == ("intent" if "intent" in path else "id")


def test_every_answer_has_a_request_id(gateway: stripe.StripeClient, sandbox: RunningSandbox) -> None:
    intent = gateway.v1.payment_intents.create(order(confirm=True), options=key("k"))
    assert intent.last_response is not None
    assert intent.last_response.request_id
    sandbox.faults(gateway={"error_rate": 1})
    with pytest.raises(stripe.APIError) as outage:
        gateway.v1.payment_intents.list()
    sandbox.faults(gateway={"rate_limit_rate": 1})
    with pytest.raises(stripe.RateLimitError) as limited:
        gateway.v1.payment_intents.list()
    sandbox.faults()
    with pytest.raises(stripe.CardError) as declined:
        gateway.v1.payment_intents.create(order(card="pm_card_visa_chargeDeclined", confirm=True))
    with pytest.raises(stripe.IdempotencyError) as reused:
        gateway.v1.payment_intents.create(order(2), options=key("k"))
    assert reused.value.error.type == "idempotency_error"
    wrong = gateway_at(sandbox.url)
    wrong._requestor._options.api_key = "pk_wrong"
    with pytest.raises(stripe.AuthenticationError) as unauthorized:
        wrong.v1.payment_intents.list()
    errors = [raised.value for raised in (outage, limited, declined, reused, unauthorized)]
    assert all(error.request_id for error in errors)
    assert len({error.request_id for error in errors}) == len(errors)


def test_metadata_that_is_empty_is_not_kept(gateway: stripe.StripeClient) -> None:
    intent = gateway.v1.payment_intents.create(order() | {"metadata": {"order_id": "1", "note": ""}})
    assert intent.metadata.to_dict() == {"order_id": "1"}


def test_list_in_both_directions_at_once_is_refused(sandbox: RunningSandbox) -> None:
    asked = {"starting_after": "pi_1", "ending_before": "pi_2"}
    answer = requests.get(f"{sandbox.url}/v1/payment_intents", asked, headers=AUTHORIZED, timeout=5)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "parameters_exclusive")
