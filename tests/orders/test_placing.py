"""Placing: order, reservation and first messages exist together or not at all."""

import threading
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from pytest_mock import MockerFixture

from orders.models import Order, OrderItem, Price, Product
from orders.services import PlacementError, place_order
from outbox.models import OutboxMessage
from outbox.testing import staged
from tests.orders.conftest import place, run_all, units


@pytest.mark.described("an order is stored, and its confirmation is sent by a job")
def test_order_its_reservation_and_its_messages_exist_together(shop: None) -> None:
    stock, reserved, _ = units()
    order = place(quantity=3, receipt_email="ada@example.com")
    assert units() == (stock - 3, reserved + 3, 0)
    assert [(m.task, m.queue, m.kwargs, m.correlation_id) for m in staged()] == [
        ("orders.tasks.process_order", "critical", {"order_id": order.id}, f"order-{order.id}"),
        ("orders.tasks.send_confirmation", "high", {"order_id": order.id}, f"order-{order.id}"),
    ]


def test_the_first_messages_of_an_order_are_written_in_one_statement(shop: None) -> None:
    with CaptureQueriesContext(connection) as placing:
        place(quantity=3)
    assert sum("INSERT INTO outbox_outboxmessage" in each["sql"] for each in placing) == 1


def test_rollback_leaves_neither_order_nor_message_nor_reservation(shop: None) -> None:
    before = units()

    @transaction.atomic
    def place_and_crash() -> None:
        place()
        raise RuntimeError("after placing, before the commit")

    with pytest.raises(RuntimeError):
        place_and_crash()
    assert not Order.objects.exists()
    assert not OutboxMessage.objects.exists()
    assert units() == before


@pytest.mark.described("a total that is added to in place grows with each run; here it is derived once")
def test_amounts_are_derived_once_in_minor_units(shop: None) -> None:
    order = place_order(
        customer_id=1, currency="usd", payment_method="pm_card_visa", lines=[("WIDGET", 2), ("GIZMO", 1)]
    )
    assert (order.subtotal_cents, order.tax_cents, order.total_cents) == (4997, 412, 5409)
    assert order.receipt_email == "customer1@example.com"


def test_changed_price_does_not_change_an_order(shop: None) -> None:
    order = place()
    Price.objects.filter(product__sku="WIDGET").update(amount_cents=1)
    assert OrderItem.objects.get(order=order).unit_price_cents == 1999


def test_last_unit_is_sold_once_however_many_want_it(busy_shop: None) -> None:
    Product.objects.filter(sku="WIDGET").update(stock=1)
    together = threading.Barrier(8)
    outcomes: list[str] = []

    def buy() -> None:
        try:
            together.wait(10)
            place()
            outcomes.append("sold")
        except PlacementError as error:
            outcomes.append(error.code)
        finally:
            connection.close()

    run_all([buy] * 8)
    assert sorted(outcomes) == ["out_of_stock"] * 7 + ["sold"]
    assert units() == (0, 1, 0)
    assert Order.objects.count() == 1


def test_orders_of_the_same_products_in_opposite_order_do_not_deadlock(busy_shop: None) -> None:
    errors: list[BaseException] = []

    def buy(skus: list[str]) -> None:
        try:
            for _ in range(20):
                place_order(
                    customer_id=1, currency="usd", payment_method="pm", lines=[(sku, 1) for sku in skus]
                )
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    ways = [["WIDGET", "GADGET", "GIZMO"], ["GIZMO", "GADGET", "WIDGET"]] * 2
    run_all([lambda skus=skus: buy(skus) for skus in ways])
    assert not errors
    assert Product.objects.get(sku="GADGET").reserved == 80


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"customer_id": 999}, "unknown_customer", "customer_id"),
        ({"lines": []}, "no_items", "items"),
        ({"lines": [("WIDGET", 1), ("NOTHING", 1)]}, "unknown_sku", "items[1].sku"),
        ({"lines": [("WIDGET", 0)]}, "invalid_quantity", "items[0].quantity"),
        ({"lines": [("WIDGET", -1)]}, "invalid_quantity", "items[0].quantity"),
        ({"lines": [("WIDGET", 10_001)]}, "invalid_quantity", "items[0].quantity"),
        ({"lines": [("WIDGET", 1), ("WIDGET", 2)]}, "duplicate_sku", "items[1].sku"),
        ({"currency": "gbp"}, "unknown_currency", "currency"),
        ({"payment_method": "pm card"}, "invalid_payment_method", "payment_method"),
        ({"receipt_email": "nobody"}, "invalid_email", "receipt_email"),
    ],
)
def test_refusal_names_the_field_and_stores_nothing(
    shop: None, changes: dict[str, Any], code: str, field: str
) -> None:
    good: dict[str, Any] = {
        "customer_id": 1,
        "currency": "usd",
        "payment_method": "pm_card_visa",
        "lines": [("WIDGET", 1)],
    }
    with pytest.raises(PlacementError) as refused, transaction.atomic():
        place_order(**good | changes)
    assert (refused.value.code, refused.value.field) == (code, field)
    assert not Order.objects.exists()
    assert not OutboxMessage.objects.exists()


def test_total_beyond_what_the_gateway_takes_is_refused_here(shop: None) -> None:
    Price.objects.filter(product__sku="WIDGET", currency="usd").update(amount_cents=99_999_999)
    with pytest.raises(PlacementError, match=r"at most 999,999\.99 USD"):
        place()


def test_out_of_stock_names_the_product_and_stores_nothing(shop: None, mocker: MockerFixture) -> None:
    Product.objects.filter(sku="GIZMO").update(stock=1)
    before = units()
    with pytest.raises(PlacementError) as refused, transaction.atomic():
        place_order(
            customer_id=1, currency="usd", payment_method="pm_card_visa", lines=[("WIDGET", 1), ("GIZMO", 2)]
        )
    assert (refused.value.code, refused.value.field) == ("out_of_stock", "items[1].sku")
    assert units() == before
    assert not Order.objects.exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"total_cents": 100, "subtotal_cents": 50, "tax_cents": 49},
        {"total_cents": -1},
        {"total_cents": 100, "status": "lost"},
        {"total_cents": 100, "status": "pending", "payment_id": "pi_1"},
    ],
)
def test_illegal_states_are_refused_by_the_database(shop: None, wrong: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Order.objects.create(customer_id=1, **wrong)
