"""payments/refunds.py: the money of an order that ended without a sale goes back, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from dlq.models import DeadLetter
from orders.models import Order
from outbox.testing import drain
from payments.gateway import transport
from payments.gateway.client import PaymentGateway
from payments.gateway.errors import GatewayUnavailable
from payments.models import Refund
from payments.refunds import RefundRefused, refund_order
from payments.tasks import refund_order as refund_task
from tests.lab.sandbox_fixture import RunningSandbox, run_sandbox
from tests.payments.conftest import MakeOrder


@pytest.fixture
def charged(make_order: MakeOrder, sandbox_settings: RunningSandbox) -> Order:
    """A cancelled order whose payment was captured."""
    return charge(make_order(status="cancelled"))


def charge(order: Order) -> Order:
    payment = PaymentGateway.charge(1, order.total_cents, idempotency_key=f"order-{order.pk}")
    Order.objects.filter(pk=order.pk).update(payment_intent_id=payment.id)
    order.refresh_from_db()
    return order


def test_a_cancelled_order_is_refunded_once(charged: Order, sandbox: RunningSandbox) -> None:
    for _ in range(2):
        refund = refund_order(charged.pk)
        assert (refund.status, refund.amount_cents) == ("succeeded", 9999)
    (given,) = sandbox.ledger("refunds", order_id=charged.pk)
    assert given["amount"] == 9999


def refund_that_fails(order: Order, sandbox: RunningSandbox, **dial: float) -> None:
    """The list of refunds is read before the refund is made: only the second answer is to be a bad one."""
    real = PaymentGateway._refunds_of

    def listed(intent_id: str) -> Any:
        found = real(intent_id)
        sandbox.faults(gateway=dial)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PaymentGateway, "_refunds_of", listed)
        with pytest.raises(GatewayUnavailable):
            refund_order(order.pk)
    sandbox.faults()


def test_a_refund_whose_answer_was_lost_is_found_again(charged: Order, sandbox: RunningSandbox) -> None:
    refund_that_fails(charged, sandbox, drop_reply_rate=1)
    assert len(sandbox.ledger("refunds", order_id=charged.pk)) == 1, "it did not act"
    assert refund_order(charged.pk).status == "succeeded"
    assert len(sandbox.ledger("refunds", order_id=charged.pk)) == 1


def test_a_forgotten_refund_is_found_after_all_keys_expired(
    make_order: MakeOrder, tmp_path: Path, settings: Any
) -> None:
    """The process died after the refund was made and before it was written down."""
    with run_sandbox(tmp_path, "--keys-ttl", "0") as sandbox:
        settings.STRIPE_API_BASE, settings.STRIPE_API_KEY = sandbox.url, "sk_test"
        order = charge(make_order(status="cancelled"))
        refund_order(order.pk)
        Refund.objects.all().delete()  # The process died before it could write.
        assert refund_order(order.pk).status == "succeeded"
        assert len(sandbox.ledger("refunds", order_id=order.pk)) == 1


def test_only_the_rest_of_a_partial_refund_is_refunded(charged: Order, sandbox: RunningSandbox) -> None:
    """The first part was refunded by hand."""
    transport.client().v1.refunds.create({"payment_intent": charged.payment_intent_id, "amount": 4000})
    assert refund_order(charged.pk).amount_cents == 9999
    assert sorted(refund["amount"] for refund in sandbox.ledger("refunds")) == [4000, 5999]


def test_the_rest_after_a_stored_error_has_its_own_key(charged: Order, sandbox: RunningSandbox) -> None:
    """A part was refunded by hand after the error."""
    refund_that_fails(charged, sandbox, cached_error_rate=1)
    transport.client().v1.refunds.create({"payment_intent": charged.payment_intent_id, "amount": 2000})
    refund_task.delay(charged.pk)
    drain()
    assert not DeadLetter.objects.exists()
    assert Refund.objects.get().amount_cents == 9999
    assert sorted(refund["amount"] for refund in sandbox.ledger("refunds")) == [2000, 7999]


def test_two_runs_that_saw_no_refund_use_one_key(
    charged: Order, sandbox: RunningSandbox, mocker: MockerFixture
) -> None:
    mocker.patch.object(PaymentGateway, "_refunds_of", return_value=[])
    first = refund_order(charged.pk).gateway_refund_id
    Refund.objects.all().delete()
    assert refund_order(charged.pk).gateway_refund_id == first
    assert len(sandbox.ledger("refunds")) == 1


def test_an_order_that_was_never_captured_is_voided(
    make_order: MakeOrder, sandbox_settings: RunningSandbox
) -> None:
    """It can no longer be captured."""
    order = make_order(status="cancelled")

    def killed(intent_id: str) -> None:
        Order.objects.filter(pk=order.pk).update(payment_intent_id=intent_id)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PaymentGateway.charge(1, 9999, idempotency_key=f"order-{order.pk}", on_created=killed)
    assert refund_order(order.pk).status == "voided"
    order.refresh_from_db()
    assert PaymentGateway.retrieve(order.payment_intent_id).status == "canceled"
    assert sandbox_settings.ledger("refunds") == []


def test_a_void_becomes_a_refund_if_money_was_taken(charged: Order, sandbox: RunningSandbox) -> None:
    """It is looked at again."""
    intent_id = charged.payment_intent_id
    Order.objects.filter(pk=charged.pk).update(payment_intent_id="")
    assert refund_order(charged.pk).status == "voided"
    Order.objects.filter(pk=charged.pk).update(payment_intent_id=intent_id)
    assert refund_order(charged.pk).status == "succeeded"


def test_an_order_that_knows_its_payment_but_no_intent_is_refunded(
    charged: Order, sandbox: RunningSandbox
) -> None:
    payment_id = charged.payment_intent_id
    Order.objects.filter(pk=charged.pk).update(payment_intent_id="", payment_id=payment_id)
    refund = refund_order(charged.pk)
    assert (refund.status, refund.payment_intent_id) == ("succeeded", payment_id)
    (given,) = sandbox.ledger("refunds", order_id=charged.pk)
    assert given["amount"] == 9999


@pytest.mark.parametrize("status", ["pending", "processing", "completed"])
def test_an_order_whose_payment_is_ours_is_not_refunded(
    make_order: MakeOrder, sandbox_settings: RunningSandbox, status: str
) -> None:
    order = charge(make_order(status=status))
    with pytest.raises(RefundRefused, match=f"is {status}"):
        refund_order(order.pk)
    assert sandbox_settings.ledger("refunds") == []


def test_the_task_refunds_once_through_a_failing_gateway(charged: Order, sandbox: RunningSandbox) -> None:
    sandbox.faults(gateway={"drop_reply_rate": 0.3, "rate_limit_rate": 0.2}, seed=5)
    for _ in range(3):
        refund_task.delay(charged.pk, event="order.refund_due")
    drain()
    sandbox.faults()
    assert Refund.objects.get().status == "succeeded"
    assert len(sandbox.ledger("refunds", order_id=charged.pk)) == 1


def test_a_refused_refund_is_a_dead_letter_at_once(
    make_order: MakeOrder, sandbox_settings: RunningSandbox
) -> None:
    refund_task.delay(make_order(status="completed").pk)
    assert drain() == 1
    assert "only cancelled or failed orders" in DeadLetter.objects.get().error
