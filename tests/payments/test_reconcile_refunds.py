"""payments/reconcile.py: what a person gave back at the gateway ends the findings that asked for it."""

from __future__ import annotations

import pytest

from orders.models import Order
from payments.gateway import transport
from payments.gateway.client import PaymentGateway
from payments.gateway.errors import GatewayUnavailable
from payments.models import Finding, Refund
from tests.lab.sandbox_fixture import RunningSandbox
from tests.payments.conftest import MakeOrder, capture, compare, kinds


@pytest.fixture
def refused(make_order: MakeOrder, gateway: RunningSandbox) -> Refund:
    """The refund of a cancelled, captured order, as the bank's refusal left it."""
    return refuse(make_order)


def refuse(make_order: MakeOrder) -> Refund:
    order = make_order()
    return Refund.objects.create(
        order=order, payment_intent_id=capture(order, status="cancelled"), currency="usd", status="failed",
        gateway_refund_id="re_refused", settled_at=order.created_at,
    )  # fmt: skip


def pay_back(intent_id: str, cents: int) -> str:
    """By hand, in the gateway's dashboard."""
    asked = {"payment_intent": intent_id, "amount": cents}
    return transport.client().v1.refunds.create(asked).id  # type: ignore[arg-type]


def test_a_refused_refund_paid_back_by_hand_is_settled(refused: Refund) -> None:
    """Its finding is gone."""
    assert kinds(compare()) == ["refund_failed"]
    pay_back(refused.payment_intent_id, 4000)
    assert kinds(compare()) == ["refund_failed"], "a part is not all"
    last = pay_back(refused.payment_intent_id, 5999)
    run = compare()
    assert (run.differences, run.resolved) == ([], 1)
    refused.refresh_from_db()
    assert (refused.status, refused.gateway_refund_id) == ("succeeded", last)
    assert refused.amount_cents == 9999


def test_a_dry_run_settles_no_refund(refused: Refund) -> None:
    pay_back(refused.payment_intent_id, 9999)
    assert kinds(compare(heal=False)) == ["refund_failed"]
    refused.refresh_from_db()
    assert refused.status == "failed"


def test_a_refused_refund_is_not_settled_by_older_news(
    refused: Refund,
) -> None:
    """The bank refused it after the gateway reported that it had succeeded."""
    Refund.objects.update(gateway_refund_id=pay_back(refused.payment_intent_id, 9999))
    assert kinds(compare()) == ["refund_failed"]


def test_refused_refunds_cost_a_bounded_number_of_calls(
    make_order: MakeOrder, gateway: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each refund gets its turn."""
    monkeypatch.setattr("payments.reconcile.FAILED_REFUNDS", 1)
    for _ in range(3):
        pay_back(refuse(make_order).payment_intent_id, 9999)
    for left in (2, 1, 0):
        assert kinds(compare()) == ["refund_failed"] * left
        assert Finding.objects.filter(resolved_at=None).count() == left


def test_a_payment_with_too_many_refunds_stops_no_other(refused: Refund, make_order: MakeOrder) -> None:
    """It has more of them than are read."""
    for _ in range(101):
        pay_back(refused.payment_intent_id, 99)
    pay_back(refuse(make_order).payment_intent_id, 9999)
    run = compare()
    assert [difference.order_id for difference in run.differences] == [refused.order_id]


def test_refused_refunds_are_read_through_a_gateway_that_fails_now_and_then(
    refused: Refund, gateway: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    pay_back(refused.payment_intent_id, 9999)
    gateway.faults(gateway={"error_rate": 0.4}, seed=1)
    assert kinds(compare()) == []
    gateway.faults(gateway={"error_rate": 1})
    with pytest.raises(GatewayUnavailable):
        PaymentGateway.given_back(refused.payment_intent_id)


def test_a_second_capture_refunded_by_hand_is_no_finding(
    make_order: MakeOrder, gateway: RunningSandbox
) -> None:
    intent_id = capture(make_order(), status="completed", payment_intent_id="pi_another")
    pay_back(intent_id, 9998)
    assert kinds(compare()) == ["captured_twice"], "a part is not all"
    pay_back(intent_id, 1)
    run = compare()
    assert (run.differences, run.resolved) == ([], 1)


def test_a_refunded_capture_without_an_order_is_no_finding(
    gateway: RunningSandbox,
) -> None:
    """A person refunded it."""
    intent_id = PaymentGateway.charge(1, 500, idempotency_key="order-999999").id
    assert kinds(compare()) == ["captured_without_order"]
    pay_back(intent_id, 500)
    assert kinds(compare()) == []


def test_an_amount_differs_until_the_excess_is_refunded(
    make_order: MakeOrder, gateway: RunningSandbox
) -> None:
    order = make_order()
    intent_id = capture(order, status="completed")
    Order.objects.update(payment_id=intent_id, subtotal_cents=9000, total_cents=9000)
    pay_back(intent_id, 998)
    assert kinds(compare()) == ["amount_differs"]
    pay_back(intent_id, 1)
    assert kinds(compare()) == []
    Order.objects.update(subtotal_cents=10_500, total_cents=10_500)
    assert kinds(compare()) == ["amount_differs"], "nothing given back makes up for what was not taken"


def test_excess_amounts_cost_a_bounded_number_of_calls(
    gateway: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each payment gets its turn."""
    monkeypatch.setattr("payments.reconcile.EXCESSES", 1)
    for order_id in (999_998, 999_999):
        pay_back(PaymentGateway.charge(1, 500, idempotency_key=f"order-{order_id}").id, 500)
    found = [compare().differences for _ in range(30)]
    assert {len(differences) for differences in found} == {1}
    assert len({difference.subject for differences in found for difference in differences}) == 2
