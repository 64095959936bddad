"""Lesson "state check": a second copy of the job starts while the first one waits for the gateway."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import MagicMock

import pytest

from lab.lessons import state_check
from orders.models import Order
from orders.services import OrderService


@pytest.fixture
def order(shop: None) -> Order:
    return Order.objects.create(customer_id=1, total_cents=9999, status="pending")


def run_twice_at_once(process: Callable[[int], object], order: Order, charge: MagicMock) -> object:
    """Run it, and a second copy of it during the first copy's charge; returns what the second one returned."""
    returned: list[object] = []

    def while_it_charges(*_: object, **__: object) -> MagicMock:
        if charge.call_count == 1:
            returned.append(process(order.pk))
        return MagicMock(id=f"txn_{charge.call_count}")

    charge.side_effect = while_it_charges
    process(order.pk)
    return returned[0]


def test_wrong_a_state_that_is_read_first_charges_twice(order: Order, charge: MagicMock) -> None:
    assert run_twice_at_once(state_check.process_order, order, charge) == "completed"
    assert charge.call_count == 2


def test_right_a_state_that_is_compared_and_set_charges_once(order: Order, charge: MagicMock) -> None:
    second = run_twice_at_once(lambda order_id: OrderService.process(order_id=order_id), order, charge)

    assert second == {"status": "in_progress", "order_id": order.pk}
    assert charge.call_count == 1
    order.refresh_from_db()
    assert (order.status, order.payment_id) == ("completed", "txn_1")
