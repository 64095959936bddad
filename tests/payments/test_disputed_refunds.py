"""A refund of a payment that the customer's bank disputes does not fight with the bank."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dlq.models import DeadLetter
from orders.models import Order
from orders.services import cancel_order
from outbox.models import OutboxMessage
from outbox.testing import drain
from payments.models import Dispute, Refund
from payments.tasks import refund_order
from tests.lab.sandbox_fixture import RunningSandbox
from tests.payments.conftest import (
    MakeOrder,
    answer_with,
    capture,
    compare,
    dispute_at_the_bank,
    kinds,
    open_findings,
)


@pytest.fixture
def cancelled(make_order: MakeOrder, gateway: RunningSandbox) -> Order:
    """An order that was cancelled while its payment is disputed; its refund has been tried."""
    order = make_order()
    capture(order, status="completed")
    Order.objects.update(payment_id=order.payment_intent_id, stock_shipped_at=order.created_at)
    dispute_at_the_bank(gateway, order)
    cancel_order(order_id=order.pk)
    drain()
    return order


class TestRefundOfADisputedPayment:
    @pytest.mark.promise(
        "P5",
        "a refund meets a dispute of its payment",
        "it waits for the dispute, and is made if that is won",
        celery="a failure like any other",
    )
    def test_is_a_finding_and_no_dead_letter(self, cancelled: Order, gateway: RunningSandbox) -> None:
        assert Refund.objects.get().status == "disputed"
        assert not DeadLetter.objects.exists()
        assert open_findings() == [("disputed", "needs_a_person")]
        asked = OutboxMessage.objects.filter(task="payments.tasks.refund_order").count()
        for _ in range(2):
            compare(mend_again=timedelta(0))
        assert OutboxMessage.objects.filter(task="payments.tasks.refund_order").count() == asked

    def test_is_made_when_the_dispute_is_won(self, cancelled: Order, gateway: RunningSandbox) -> None:
        answer_with("winning_evidence", Dispute.objects.get().dispute_id)
        compare()
        drain()
        refund = Refund.objects.get()
        assert (refund.status, refund.amount_cents) == ("succeeded", 9999)
        assert len(gateway.ledger("refunds")) == 1
        assert open_findings() == []

    def test_is_needless_when_it_is_lost(self, cancelled: Order, gateway: RunningSandbox) -> None:
        answer_with("losing_evidence", Dispute.objects.get().dispute_id)
        assert kinds(compare()) == []
        drain()
        assert Refund.objects.get().status == "disputed"
        assert open_findings() == []
        refund_order(cancelled.pk)
        assert Refund.objects.get().status == "disputed"

    def test_that_is_only_an_inquiry_is_made(self, make_order: MakeOrder, gateway: RunningSandbox) -> None:
        order = make_order()
        capture(order, status="cancelled")
        dispute_at_the_bank(gateway, order, inquiry=True)
        refund_order(order.pk)
        assert Refund.objects.get().status == "succeeded"
