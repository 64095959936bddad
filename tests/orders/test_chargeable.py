"""What the gateway is certain to refuse is refused at placement; what it refuses all the same ends the order."""

from typing import Any

import pytest
from django.db import transaction
from pytest_mock import MockerFixture

import dlq.replay
from dlq.models import DeadLetter
from orders.models import Order, Price, Product
from orders.services import PlacementError
from orders.tasks import process_order
from outbox.models import OutboxMessage
from outbox.testing import drain
from payments.gateway import InvalidRequest, PaymentGateway
from tests.lab.sandbox_fixture import RunningSandbox
from tests.orders.conftest import Caller, body, place, quiet, units
from tests.orders.test_api import problem


def priced(cents: int, currency: str) -> None:
    """WIDGET costs this; there is no tax but in usd (8.25 %) and eur (19 %)."""
    product = Product.objects.get(sku="WIDGET")
    Price.objects.update_or_create(product=product, currency=currency, defaults={"amount_cents": cents})


REFUSED = [
    (40, "usd", "total_too_small", "The total is 0.43 USD; it must be at least 0.50 USD."),
    (49, "jpy", "total_too_small", "The total is 49 JPY; it must be at least 50 JPY."),
    (17_499, "huf", "total_too_small", "The total is 174.99 HUF; it must be at least 175.00 HUF."),
    (100_000_000, "gbp", "total_too_large", "it may be at most 999,999.99 GBP."),
    (100_000_000, "jpy", "total_too_large", "it may be at most 99,999,999 JPY."),
    (10**12, "idr", "total_too_large", "it may be at most 9,999,999,999.99 IDR."),
    (1_999, "bhd", "total_not_chargeable", "The total is 1.999 BHD; it must be a multiple of 0.010 BHD."),
    (550, "isk", "total_not_chargeable", "The total is 5.50 ISK; it must be a multiple of 1.00 ISK."),
    (150, "ugx", "total_not_chargeable", "The total is 1.50 UGX; it must be a multiple of 1.00 UGX."),
    (500, "xyz", "unknown_currency", "Payments in XYZ are not possible."),
]
#: In the gateway's words.
REFUSALS = {"amount_too_small", "amount_too_large", "invalid_charge_amount", "currency"}
TAKEN = [
    (47, "usd"),  # 0.51 with its tax: the total is what is charged
    (50, "jpy"),
    (99_999_999, "gbp"),
    (999_999_999_999, "idr"),
    (1_990, "bhd"),
    (500, "isk"),
    (500, "ugx"),
    (1, "xof"),
]


@pytest.mark.parametrize(("cents", "currency", "code", "limit"), REFUSED)
def test_order_the_gateway_would_refuse_is_a_422_naming_the_limit(
    api: Caller, cents: int, currency: str, code: str, limit: str
) -> None:
    priced(cents, currency)
    before = units()
    sent = body(currency=currency, items=[{"sku": "WIDGET", "quantity": 1}])
    document = problem(api.post(sent), 422)
    assert document["code"] == code
    assert limit in document["detail"]
    assert document["errors"][0]["field"] == ("currency" if code == "unknown_currency" else "items")
    assert units() == before
    assert not Order.objects.exists()
    assert not OutboxMessage.objects.exists()


@pytest.mark.parametrize(("cents", "currency"), TAKEN)
def test_order_at_the_limit_is_taken_and_charged(
    shop: None, sandbox_settings: RunningSandbox, mocker: MockerFixture, cents: int, currency: str
) -> None:
    quiet(mocker)
    priced(cents, currency)
    order = place(currency=currency)
    drain()
    order.refresh_from_db()
    assert order.status == "completed"
    [charge] = sandbox_settings.ledger("charges")
    assert (charge["amount"], charge["currency"]) == (order.total_cents, currency)


@pytest.fixture
def accepted(shop: None, mocker: MockerFixture) -> Any:
    """Places an order that the gateway refuses, as the release before accepted it."""

    def place_unchecked(cents: int, currency: str) -> Order:
        quiet(mocker)
        priced(cents, currency)
        unchecked = mocker.patch("orders.services.placing.check_chargeable")
        order = place(quantity=1, currency=currency)
        mocker.stop(unchecked)
        return order

    return place_unchecked


@pytest.mark.promise(
    "P4",
    "the gateway refuses an amount that was accepted at placement",
    "the order has failed, and its stock is free",
)
@pytest.mark.parametrize(("cents", "currency"), [(each[0], each[1]) for each in REFUSED])
def test_refusal_of_the_gateway_fails_the_order_and_frees_stock(
    accepted: Any, sandbox_settings: RunningSandbox, cents: int, currency: str
) -> None:
    before = units()
    order = accepted(cents, currency)

    drain()

    order.refresh_from_db()
    assert (order.status, order.payment_id) == ("failed", "")
    assert order.failure_reason.startswith("The payment provider does not accept this charge: ")
    assert order.failure_reason.rstrip(".").rpartition(" ")[2] in REFUSALS
    assert units() == before
    assert not OutboxMessage.objects.filter(status="dead").exists()
    published = OutboxMessage.objects.get(task="webhooks.tasks.publish_event")
    assert published.kwargs == {"event": "order.failed", "order_id": order.pk}
    assert sandbox_settings.ledger("charges") == []


def test_refused_order_left_processing_is_ended_by_a_replay(
    accepted: Any, sandbox_settings: RunningSandbox, mocker: MockerFixture
) -> None:
    """An earlier release left it processing."""
    before = units()
    order = accepted(40, "usd")
    stuck = mocker.patch.object(PaymentGateway, "charge", side_effect=InvalidRequest("too small"))
    drain()
    mocker.stop(stuck)
    order.refresh_from_db()
    assert order.status == "processing"
    dlq.replay.replay(DeadLetter.objects.get().pk)
    drain()
    order.refresh_from_db()
    assert order.status == "failed"
    assert units() == before
    assert not DeadLetter.objects.exclude(state="resolved").exists()


def test_order_without_a_payment_method_is_charged_to_none(
    pending_order: Order, sandbox_settings: RunningSandbox, mocker: MockerFixture
) -> None:
    assert process_order(pending_order.pk)["status"] == "failed"
    pending_order.refresh_from_db()
    assert pending_order.failure_reason == "The payment provider does not accept this charge: payment_method."
    assert sandbox_settings.ledger("charges") == []


def test_refusal_of_our_own_key_fails_no_order(
    shop: None, sandbox_settings: RunningSandbox, mocker: MockerFixture, settings: Any
) -> None:
    quiet(mocker)
    settings.STRIPE_API_KEY = "pk_wrong"
    order = place()
    drain()
    order.refresh_from_db()
    assert order.status == "processing"
    assert OutboxMessage.objects.get(task="orders.tasks.process_order").status == "dead"


def test_refusal_names_the_sum_of_all_lines(shop: None) -> None:
    priced(30, "usd")
    with pytest.raises(PlacementError, match=r"0\.32 USD"), transaction.atomic():
        place()
    assert place(quantity=2).total_cents == 65
