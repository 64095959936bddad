"""The gateway speaks Stripe's PaymentIntents, as the official client understands them."""

from __future__ import annotations

from typing import Any

import pytest
import requests
import stripe

from tests.lab.sandbox.conftest import key, order
from tests.lab.sandbox_fixture import API_KEY, RunningSandbox


def test_an_intent_created_then_confirmed_is_one_capture_with_its_order(
    gateway: stripe.StripeClient, sandbox: RunningSandbox
) -> None:
    intent = gateway.v1.payment_intents.create(order(7))
    assert intent.status == "requires_confirmation"
    assert sandbox.ledger("charges") == []

    confirmed = gateway.v1.payment_intents.confirm(intent.id)

    assert (confirmed.status, confirmed.amount_received) == ("succeeded", 4990)
    [charge] = sandbox.ledger("charges", order_id=7)
    assert charge["payment_intent"] == intent.id
    assert (charge["amount"], charge["currency"]) == (4990, "eur")
    assert charge["metadata"] == {"order_id": "7"}
    assert confirmed.latest_charge == charge["id"]
    assert gateway.v1.payment_intents.retrieve(intent.id) == confirmed
    assert gateway.v1.charges.retrieve(charge["id"]).payment_intent == intent.id


def test_an_intent_created_with_confirm_is_captured_at_once(
    gateway: stripe.StripeClient, sandbox: RunningSandbox
) -> None:
    assert gateway.v1.payment_intents.create(order(confirm=True)).status == "succeeded"
    assert sandbox.summary("charges") == {"count": 1, "amounts": {"eur": 4990}, "orders": 1, "repeated": []}


def test_a_succeeded_intent_is_never_captured_again(
    gateway: stripe.StripeClient, sandbox: RunningSandbox
) -> None:
    intent = gateway.v1.payment_intents.create(order(confirm=True))

    with pytest.raises(stripe.InvalidRequestError) as refused:
        gateway.v1.payment_intents.confirm(intent.id, options=key("another"))

    assert refused.value.code == "payment_intent_unexpected_state"
    assert refused.value.error.payment_intent["status"] == "succeeded"
    assert sandbox.summary("charges")["count"] == 1


@pytest.mark.parametrize(
    ("card", "code", "decline_code"),
    [
        ("pm_card_visa_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_visa_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", "expired_card"),
    ],
)
def test_a_declined_card_is_a_402_and_captures_nothing(
    gateway: stripe.StripeClient, sandbox: RunningSandbox, card: str, code: str, decline_code: str
) -> None:
    """The error carries the intent."""
    intent = gateway.v1.payment_intents.create(order(card=card))

    with pytest.raises(stripe.CardError) as declined:
        gateway.v1.payment_intents.confirm(intent.id)

    assert (declined.value.http_status, declined.value.code) == (402, code)
    assert declined.value.error.decline_code == decline_code
    assert declined.value.error.payment_intent["id"] == intent.id
    assert gateway.v1.payment_intents.retrieve(intent.id).status == "requires_payment_method"
    assert sandbox.ledger("charges") == []


def test_a_declined_intent_succeeds_with_another_card(
    gateway: stripe.StripeClient, sandbox: RunningSandbox
) -> None:
    intent = gateway.v1.payment_intents.create(order(card="pm_card_visa_chargeDeclined"))
    with pytest.raises(stripe.CardError):
        gateway.v1.payment_intents.confirm(intent.id)
    confirmed = gateway.v1.payment_intents.confirm(intent.id, {"payment_method": "pm_card_mastercard"})
    assert (confirmed.status, confirmed.last_payment_error) == ("succeeded", None)
    assert sandbox.summary("charges")["count"] == 1


def test_an_intent_without_a_card_cannot_be_confirmed(
    gateway: stripe.StripeClient, sandbox: RunningSandbox
) -> None:
    intent = gateway.v1.payment_intents.create({"amount": 4990, "currency": "eur"})
    assert intent.status == "requires_payment_method"
    for call in (
        lambda: gateway.v1.payment_intents.confirm(intent.id),
        lambda: gateway.v1.payment_intents.create({"amount": 4990, "currency": "eur", "confirm": True}),
    ):
        with pytest.raises(stripe.InvalidRequestError, match="missing a payment method"):
            call()
    assert [listed.id for listed in gateway.v1.payment_intents.list().data] == [intent.id]
    assert sandbox.ledger("charges") == []


def test_a_card_that_needs_its_owner_waits_for_him_and_captures_nothing(
    gateway: stripe.StripeClient, sandbox: RunningSandbox
) -> None:
    intent = gateway.v1.payment_intents.create(order(card="pm_card_authenticationRequired", confirm=True))
    assert intent.status == "requires_action"
    assert sandbox.ledger("charges") == []


def test_a_cancelled_intent_cannot_be_captured(gateway: stripe.StripeClient, sandbox: RunningSandbox) -> None:
    """Nor can a captured one be cancelled."""
    cancelled = gateway.v1.payment_intents.cancel(gateway.v1.payment_intents.create(order()).id)
    assert cancelled.status == "canceled"
    captured = gateway.v1.payment_intents.create(order(confirm=True))

    for late in (
        lambda: gateway.v1.payment_intents.confirm(cancelled.id),
        lambda: gateway.v1.payment_intents.cancel(cancelled.id),
        lambda: gateway.v1.payment_intents.cancel(captured.id),
    ):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            late()
        assert refused.value.code == "payment_intent_unexpected_state"
    assert [charge["payment_intent"] for charge in sandbox.ledger("charges")] == [captured.id]


@pytest.mark.parametrize(
    ("params", "param", "code"),
    [
        (order() | {"amount": 0}, "amount", "parameter_invalid_integer"),
        (order() | {"amount": -5}, "amount", "parameter_invalid_integer"),
        (order() | {"amount": "49.90"}, "amount", "parameter_invalid_integer"),
        (order() | {"amount": 100_000_000}, "amount", "amount_too_large"),
        (order() | {"amount": 10**12, "currency": "idr"}, "amount", "amount_too_large"),
        (order() | {"amount": 49}, "amount", "amount_too_small"),
        (order() | {"amount": 49, "currency": "jpy"}, "amount", "amount_too_small"),
        (order() | {"amount": 29, "currency": "gbp"}, "amount", "amount_too_small"),
        (order() | {"amount": 1999, "currency": "bhd"}, "amount", "invalid_charge_amount"),
        (order() | {"amount": 550, "currency": "isk"}, "amount", "invalid_charge_amount"),
        (order() | {"amount": 550, "currency": "ugx"}, "amount", "invalid_charge_amount"),
        ({"currency": "eur"}, "amount", "parameter_missing"),
        ({"amount": 100}, "currency", "parameter_missing"),
        (order() | {"currency": "bitcoin"}, "currency", None),
        (order(card="pm_unknown"), "payment_method", "resource_missing"),
        (order() | {"payment_method": {"nested": "1"}}, "payment_method", None),
        (order() | {"metadata": {"key": "x" * 501}}, "metadata", None),
        (order() | {"metadata": "flat"}, "metadata", None),
        (order() | {"amuont": 1}, "amuont", "parameter_unknown"),
    ],
)
def test_a_bad_parameter_is_a_400_that_names_it_and_stores_nothing(
    gateway: stripe.StripeClient, params: Any, param: str, code: str | None
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        gateway.v1.payment_intents.create(params, options=key("k"))
    assert (refused.value.http_status, refused.value.param, refused.value.code) == (400, param, code)
    assert gateway.v1.payment_intents.list().data == []
    # Nothing was executed, so the key is still free.
    assert gateway.v1.payment_intents.create(order(), options=key("k")).status == "requires_confirmation"


def test_an_unknown_intent_is_a_404(gateway: stripe.StripeClient) -> None:
    for call in (
        gateway.v1.payment_intents.retrieve,
        gateway.v1.payment_intents.confirm,
        gateway.v1.payment_intents.cancel,
    ):
        with pytest.raises(stripe.InvalidRequestError) as missing:
            call("pi_unknown")
        assert (missing.value.http_status, missing.value.code) == (404, "resource_missing")


@pytest.mark.parametrize("authorization", [None, "Bearer", "Bearer pk_public", f"Basic {API_KEY}"])
def test_without_a_secret_key_nothing_is_done(sandbox: RunningSandbox, authorization: str | None) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    answer = requests.post(
        f"{sandbox.url}/v1/payment_intents",
        data={"amount": 100, "currency": "eur"},
        headers=headers,
        timeout=5,
    )
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_wrong_key_is_an_authentication_error_to_the_client(sandbox: RunningSandbox) -> None:
    client = stripe.StripeClient(
        "pk_x",
        base_addresses={"api": sandbox.url},
        http_client=stripe.RequestsClient(session=requests.Session()),
    )
    with pytest.raises(stripe.AuthenticationError):
        client.v1.payment_intents.list()


def test_a_list_is_walked_page_by_page_newest_first(gateway: stripe.StripeClient) -> None:
    created = [gateway.v1.payment_intents.create(order(number)).id for number in range(5)]

    page = gateway.v1.payment_intents.list({"limit": 2})
    assert ([intent.id for intent in page.data], page.has_more) == ([created[4], created[3]], True)
    page = gateway.v1.payment_intents.list({"limit": 3, "starting_after": created[3]})
    assert ([intent.id for intent in page.data], page.has_more) == (
        [created[2], created[1], created[0]],
        False,
    )
    page = gateway.v1.payment_intents.list({"limit": 2, "ending_before": created[1]})
    assert ([intent.id for intent in page.data], page.has_more) == ([created[3], created[2]], True)

    walked = gateway.v1.payment_intents.list({"limit": 2}).auto_paging_iter()
    assert [intent.id for intent in walked] == created[::-1]


def test_a_list_is_narrowed_by_time(gateway: stripe.StripeClient) -> None:
    intent = gateway.v1.payment_intents.create(order())
    assert gateway.v1.payment_intents.list({"created": {"gte": intent.created}}).data == [intent]
    assert gateway.v1.payment_intents.list({"created": intent.created}).data == [intent]
    assert gateway.v1.payment_intents.list({"created": {"gt": intent.created}}).data == []
    assert gateway.v1.payment_intents.list({"created": {"lt": intent.created}}).data == []


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("created[about]=1", "created"),
        ("created[gte]=now", "created"),
        ("starting_after=pi_unknown", "starting_after"),
        ("payment_intent[x]=1", "payment_intent"),
        ("colour=red", "colour"),
    ],
)
def test_a_list_that_asks_for_nonsense_is_a_400_that_names_it(
    sandbox: RunningSandbox, asked: str, param: str
) -> None:
    answer = requests.get(
        f"{sandbox.url}/v1/payment_intents?{asked}",
        headers={"Authorization": f"Bearer {API_KEY}"},
        timeout=5,
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_a_refund_gives_back_the_whole_capture_once(
    gateway: stripe.StripeClient, sandbox: RunningSandbox
) -> None:
    intent = gateway.v1.payment_intents.create(order(3, confirm=True))

    first = gateway.v1.refunds.create({"payment_intent": intent.id}, options=key("refund-order-3"))
    again = gateway.v1.refunds.create({"payment_intent": intent.id}, options=key("refund-order-3"))

    assert (first.status, first.amount, again.id) == ("succeeded", 4990, first.id)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        gateway.v1.refunds.create({"payment_intent": intent.id})
    assert refused.value.code == "charge_already_refunded"
    [refund] = sandbox.ledger("refunds", order_id=3)
    assert (refund["id"], refund["amount"], refund["payment_intent"]) == (first.id, 4990, intent.id)
    assert sandbox.ledger("charges")[0]["amount_refunded"] == 4990
    assert gateway.v1.refunds.retrieve(first.id) == first


def test_partial_refunds_never_exceed_the_capture(
    gateway: stripe.StripeClient, sandbox: RunningSandbox
) -> None:
    intent = gateway.v1.payment_intents.create(order(confirm=True))
    charge = str(intent.latest_charge)
    gateway.v1.refunds.create({"payment_intent": intent.id, "amount": 4000})
    for amount, code in ((991, "amount_too_large"), (0, "parameter_invalid_integer")):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            gateway.v1.refunds.create({"charge": charge, "amount": amount})
        assert (refused.value.param, refused.value.code) == ("amount", code)
    gateway.v1.refunds.create({"charge": charge, "amount": 990})
    assert sandbox.summary("refunds")["amounts"] == {"eur": 4990}
    assert len(gateway.v1.refunds.list({"payment_intent": intent.id}).data) == 2
    assert gateway.v1.refunds.list({"payment_intent": "pi_other"}).data == []


def test_what_was_not_captured_is_not_refunded(gateway: stripe.StripeClient, sandbox: RunningSandbox) -> None:
    intent = gateway.v1.payment_intents.create(order())
    for params in ({"payment_intent": intent.id}, {"payment_intent": "pi_unknown"}, {}):
        with pytest.raises(stripe.InvalidRequestError):
            gateway.v1.refunds.create(params)  # type: ignore[arg-type]
    assert sandbox.ledger("refunds") == []
