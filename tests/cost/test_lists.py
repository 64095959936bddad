"""Endpoints that answer with a list cost the same for one row and for ten."""

from __future__ import annotations

import uuid
from unittest.mock import MagicMock

import pytest
from django.test import Client
from pytest_mock import MockerFixture

from dlq.models import DeadLetter
from outbox.models import OutboxMessage
from outbox.testing import drain
from tests.cost.counting import Cost, counting
from tests.orders.conftest import Caller, body, place, quiet
from webhooks.models import Subscription


@pytest.mark.parametrize("path", ["/api/orders", "/api/orders/{order}/journey", "/metrics"])
def test_a_list_costs_the_same_for_one_order_and_for_ten(api: Caller, path: str) -> None:
    order = place().pk
    with_one = _cost(api, path.format(order=order))
    for _ in range(9):
        place()
    assert _cost(api, path.format(order=order)) == with_one


def test_the_journey_of_any_order_costs_the_same(
    api: Caller, admin_client: Client, mocker: MockerFixture
) -> None:
    """Whatever has happened to the order."""
    order = place()
    with_little = _cost(admin_client, f"/orders/{order.pk}/")
    quiet(mocker)
    mocker.patch("payments.gateway.PaymentGateway.charge", return_value=MagicMock(id="txn_123"))
    mocker.patch("webhooks.transport.post", side_effect=OSError("no route"))
    for number in range(3):
        Subscription.objects.create(customer_id=1, url=f"https://shop.example/{number}")
    drain()
    order.refresh_from_db()
    assert (order.status, DeadLetter.objects.count()) == ("completed", 3)
    with_more = _cost(admin_client, f"/orders/{order.pk}/")
    # Deliveries of its events, and events of its dead letters, are looked up where there are any.
    assert with_more.statements == with_little.statements + 2
    place_another = OutboxMessage.objects.filter(task="webhooks.tasks.deliver")
    for row in [*place_another, *DeadLetter.objects.all()]:
        row.pk, row.message_id = None, uuid.uuid4()
        if isinstance(row, OutboxMessage):
            row.ordering_key = ""
        row.save()
    assert _cost(admin_client, f"/orders/{order.pk}/") == with_more


def test_an_order_costs_the_same_for_three_products_as_for_one(api: Caller, mocker: MockerFixture) -> None:
    mocker.patch("orders.api.limits.check_backlog")  # counts by the clock, not by the order
    api.post(body(), key="first")  # what a process looks up once is known from here on
    costs = []
    for skus in (["WIDGET"], ["WIDGET", "GADGET", "GIZMO"]):
        items = [{"sku": sku, "quantity": 1} for sku in skus]
        with counting() as cost:
            placed = api.post(body(items=items), key=f"{len(skus)} products")
        with counting() as of_reading:
            api.get(placed["Location"])
        with counting() as of_cancelling:
            assert api.post({}, path=f"{placed['Location']}/cancel").status_code == 200
        costs.append((cost, of_reading, of_cancelling))
    assert costs[0] == costs[1]


def _cost(api: Caller | Client, path: str) -> Cost:
    assert api.get(path).status_code == 200
    with counting() as cost:
        api.get(path)
    return cost
