"""Endpoints that answer with a list cost the same for one row and for ten."""

from __future__ import annotations

import pytest

from tests.cost.counting import Cost, counting
from tests.orders.conftest import Caller, place


@pytest.mark.parametrize("path", ["/api/orders", "/api/orders/{order}/journey", "/metrics"])
def test_a_list_costs_the_same_for_one_order_and_for_ten(api: Caller, path: str) -> None:
    order = place().pk
    with_one = _cost(api, path.format(order=order))
    for _ in range(9):
        place()
    assert _cost(api, path.format(order=order)) == with_one


def _cost(api: Caller, path: str) -> Cost:
    assert api.get(path).status_code == 200
    with counting() as cost:
        api.get(path)
    return cost
