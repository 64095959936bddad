"""Lesson "reconciliation": the gateway has charged an order, and the shop does not know it."""

from __future__ import annotations

from datetime import timedelta

from lab.lessons.reconciliation import give_up
from outbox.testing import drain
from tests.lab.sandbox_fixture import RunningSandbox
from tests.payments.conftest import MakeOrder, capture, compare, kinds


def test_wrong_an_unreported_charge_is_kept_though_its_order_failed(
    make_order: MakeOrder, gateway: RunningSandbox
) -> None:
    order = make_order()
    capture(order, status="processing")

    assert give_up(older_than=timedelta(seconds=-1)) == 1
    assert len(gateway.ledger("charges", order_id=order.pk)) == 1
    assert gateway.ledger("refunds", order_id=order.pk) == []


def test_right_what_the_gateway_has_charged_is_completed_without_a_second_charge(
    make_order: MakeOrder, gateway: RunningSandbox
) -> None:
    order = make_order(status="pending")
    capture(order, status="processing")

    assert kinds(compare()) == ["captured_not_completed"]
    drain()

    order.refresh_from_db()
    assert order.status == "completed"
    assert len(gateway.ledger("charges", order_id=order.pk)) == 1
    assert compare().differences == []


def test_right_what_the_gateway_has_charged_for_a_failed_order_is_refunded(
    make_order: MakeOrder, gateway: RunningSandbox
) -> None:
    order = make_order()
    capture(order, status="processing")
    give_up(older_than=timedelta(seconds=-1))

    assert kinds(compare()) == ["captured_not_refunded"]
    drain()

    assert len(gateway.ledger("refunds", order_id=order.pk)) == 1
