"""Endpoints that answer with a list cost the same for one row and for ten."""

from __future__ import annotations

import pytest
from pytest_mock import MockerFixture

from tests.cost.counting import Cost, counting
from tests.orders.conftest import Caller, body, place


@pytest.mark.parametrize("path", ["/api/orders", "/api/orders/{order}/journey", "/metrics"])
def test_a_list_costs_the_same_for_one_order_and_for_ten(api: Caller, path: str) -> None:
    order = place().pk
    with_one = _cost(api, path.format(order=order))
    for _ in range(9):
        place()
    assert _cost(api, path.format(order=order)) == with_one


def test_an_order_of_three_products_costs_what_one_of_a_single_product_does(
    api: Caller, mocker: MockerFixture
) -> None:
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


def _cost(api: Caller, path: str) -> Cost:
    assert api.get(path).status_code == 200
    with counting() as cost:
        api.get(path)
    return cost
