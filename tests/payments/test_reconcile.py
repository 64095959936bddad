"""payments/reconcile.py against the sandbox: what differs from its ledger is mended, or listed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_mock import MockerFixture

from orders.models import Order
from outbox.testing import clear, drain, staged
from payments.gateway.client import PaymentGateway
from payments.gateway.errors import GatewayUnavailable
from payments.models import Finding, Refund
from payments.reconcile import reconcile
from payments.tasks import reconcile as reconcile_task
from tests.lab.sandbox_fixture import RunningSandbox
from tests.payments.conftest import MakeOrder, capture, compare, kinds


def test_orders_that_agree_with_the_gateway_are_no_finding(
    make_order: MakeOrder, gateway: RunningSandbox
) -> None:
    order = make_order()
    capture(order, status="completed", payment_id="x")
    Order.objects.update(payment_id=order.payment_intent_id)
    make_order(status="pending")
    run = compare()
    assert (run.intents, run.captured, run.differences) == (1, 1, [])


@pytest.mark.promise(
    "P8",
    "an order is charged, and its message is dead",
    "the next reconciliation completes it, without a second charge",
)
def test_a_captured_order_whose_message_died_completes(
    make_order: MakeOrder, gateway: RunningSandbox
) -> None:
    """It is processed again, without a second capture."""
    order = make_order(status="pending")
    capture(order, status="processing")

    assert kinds(compare()) == ["captured_not_completed"]
    assert [message.queue for message in staged("orders.tasks.process_order")] == ["critical"]

    drain()

    order.refresh_from_db()
    assert (order.status, order.processing_count) == ("completed", 1)
    assert len(gateway.ledger("charges", order_id=order.pk)) == 1

    run = compare()
    assert (run.differences, run.resolved) == ([], 1)


@pytest.mark.parametrize("status", ["cancelled", "failed"])
def test_a_captured_order_that_ended_without_a_sale_is_refunded(
    make_order: MakeOrder, gateway: RunningSandbox, status: str
) -> None:
    order = make_order()
    capture(order, status=status)
    assert kinds(compare()) == ["captured_not_refunded"]
    drain()
    assert Refund.objects.get().status == "succeeded"
    assert len(gateway.ledger("refunds", order_id=order.pk)) == 1
    assert compare().differences == []


def test_a_payment_that_may_still_be_at_work_is_left_alone(
    make_order: MakeOrder, gateway: RunningSandbox
) -> None:
    capture(make_order(), status="processing")
    assert reconcile().differences == []
    assert staged() == []


def test_a_second_capture_for_one_order_is_listed_for_a_person(
    make_order: MakeOrder, gateway: RunningSandbox
) -> None:
    order = make_order()
    capture(order, status="completed", payment_intent_id="pi_another")
    run = compare()
    assert kinds(run) == ["captured_twice"]
    assert run.differences[0].action == Finding.Action.NEEDS_A_PERSON
    assert staged() == []


def test_a_capture_without_an_order_and_one_over_another_amount_are_listed(
    make_order: MakeOrder, gateway: RunningSandbox
) -> None:
    PaymentGateway.charge(1, 500, idempotency_key="order-999999")
    order = make_order()
    capture(order, status="completed")
    Order.objects.update(payment_id=order.payment_intent_id, subtotal_cents=1, total_cents=1)
    assert kinds(compare()) == ["amount_differs", "captured_without_order"]


def test_a_capture_that_names_no_order_is_not_ours(gateway: RunningSandbox) -> None:
    PaymentGateway.charge(1, 500)
    assert compare().differences == []


def test_a_completed_order_unknown_to_the_gateway_is_listed(
    make_order: MakeOrder, gateway: RunningSandbox
) -> None:
    """Until it is explained."""
    order = make_order(status="completed", payment_id="pi_nowhere")
    assert kinds(compare()) == ["completed_not_captured"]
    # It is followed when it is older than the window, too.
    assert kinds(compare(window=timedelta(microseconds=1))) == ["completed_not_captured"]
    Order.objects.filter(pk=order.pk).update(status="failed")
    assert compare().resolved == 1


def test_a_finding_outside_the_window_is_followed_until_gone(
    make_order: MakeOrder, gateway: RunningSandbox
) -> None:
    order = make_order()
    capture(order, status="completed", payment_intent_id="pi_another")
    compare()
    before = Finding.objects.get()
    run = compare(window=timedelta(seconds=-3600))
    assert kinds(run) == ["captured_twice"]
    after = Finding.objects.get()
    assert after.first_seen_at == before.first_seen_at
    assert after.last_seen_at > before.last_seen_at


#: A window in which the gateway's list is empty: everything at the sandbox is of today.
PAST_THE_WINDOW = timedelta(hours=-1)


@pytest.mark.promise(
    "P8",
    "an order is charged days after it was placed",
    "a finding of the next reconciliation, which mends it",
)
def test_an_old_order_charged_on_day_three_is_completed(
    make_order: MakeOrder, gateway: RunningSandbox
) -> None:
    order = make_order()
    capture(order, status="processing")

    assert kinds(compare(window=PAST_THE_WINDOW)) == ["captured_not_completed"]

    drain()

    order.refresh_from_db()
    assert (order.status, order.processing_count) == ("completed", 1)
    assert len(gateway.ledger("charges", order_id=order.pk)) == 1


@pytest.mark.parametrize("status", ["cancelled", "failed"])
def test_an_old_order_charged_without_a_sale_is_refunded(
    make_order: MakeOrder, gateway: RunningSandbox, status: str
) -> None:
    order = make_order()
    capture(order, status=status)
    assert kinds(compare(window=PAST_THE_WINDOW)) == ["captured_not_refunded"]
    drain()
    assert len(gateway.ledger("refunds", order_id=order.pk)) == 1
    assert compare(window=PAST_THE_WINDOW).resolved == 1


def test_old_orders_cost_a_bounded_number_of_calls(
    make_order: MakeOrder, gateway: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each order gets its turn."""
    monkeypatch.setattr("payments.reconcile.OPEN_ORDERS", 2)
    monkeypatch.setattr("payments.reconcile.ENDED_ORDERS", 1)
    for status in ("processing", "failed"):
        for _ in range(4):
            order = make_order()
            capture(order, status=status)
    found: set[str] = set()
    runs = 0
    while len(found) < 8:
        run = compare(window=PAST_THE_WINDOW, heal=False)
        new = {difference.subject for difference in run.differences} - found
        assert len(new) <= 3
        found |= new
        runs += 1
        assert runs < 500
    assert Finding.objects.filter(resolved_at=None).count() == 8


def test_old_orders_are_read_through_a_gateway_that_fails_now_and_then(
    make_order: MakeOrder, gateway: RunningSandbox
) -> None:
    capture(make_order(), status="processing")
    gateway.faults(gateway={"error_rate": 0.4}, seed=1)
    for _ in range(5):
        assert kinds(compare(window=PAST_THE_WINDOW, heal=False)) == ["captured_not_completed"]
    assert gateway.bitten("gateway", "error_rate") > 0


def test_a_longer_grace_reports_no_finding_as_gone(make_order: MakeOrder, gateway: RunningSandbox) -> None:
    capture(make_order(), status="cancelled")
    stuck = make_order()
    capture(stuck, status="cancelled")
    Refund.objects.create(order=stuck, payment_intent_id=stuck.payment_intent_id, currency="usd")
    assert kinds(compare(heal=False)) == ["captured_not_refunded", "refund_overdue"]
    before = set(Finding.objects.values_list("pk", "first_seen_at"))
    run = compare(grace=timedelta(hours=1), heal=False)
    assert (kinds(run), run.resolved) == (["captured_not_refunded", "refund_overdue"], 0)
    assert set(Finding.objects.values_list("pk", "first_seen_at")) == before


def test_a_clock_that_is_ahead_makes_no_payment_old(
    make_order: MakeOrder, gateway: RunningSandbox, mocker: MockerFixture
) -> None:
    """The clock of the worker."""
    capture(make_order(), status="cancelled")
    mocker.patch("django.utils.timezone.now", return_value=timezone.now() + timedelta(hours=2))
    assert reconcile().differences == []


def test_what_reconciliation_starts_belongs_to_the_orders_journey(
    make_order: MakeOrder, gateway: RunningSandbox
) -> None:
    charged, ended = make_order(), make_order()
    capture(charged, status="processing")
    capture(ended, status="cancelled")
    compare()
    assert {message.task: message.correlation_id for message in staged()} == {
        "orders.tasks.process_order": f"order-{charged.pk}",
        "payments.tasks.refund_order": f"order-{ended.pk}",
    }


def test_a_refund_never_settled_is_asked_for_again(make_order: MakeOrder, gateway: RunningSandbox) -> None:
    """A failed one is listed."""
    stuck, refused = make_order(), make_order(status="cancelled", payment_intent_id="pi_x")
    capture(stuck, status="cancelled")
    Refund.objects.create(order=stuck, payment_intent_id=stuck.payment_intent_id, currency="usd")
    Refund.objects.create(
        order=refused,
        payment_intent_id="pi_x",
        currency="usd",
        status="failed",
        settled_at=refused.created_at,
    )
    assert kinds(compare()) == ["refund_failed", "refund_overdue"]
    drain()
    assert Refund.objects.get(order=stuck).status == "succeeded"


def test_running_twice_mends_once(make_order: MakeOrder, gateway: RunningSandbox) -> None:
    capture(make_order(), status="cancelled")
    compare()
    compare()
    assert len(staged("payments.tasks.refund_order")) == 1
    compare(mend_again=timedelta(0))
    assert len(staged("payments.tasks.refund_order")) == 2, "asking for it mends it again"
    drain()
    assert Finding.objects.count() == 1
    assert len(gateway.ledger("refunds")) == 1


def test_a_difference_that_comes_back_is_a_new_one(make_order: MakeOrder, gateway: RunningSandbox) -> None:
    capture(make_order(), status="cancelled")
    compare()
    Order.objects.update(status="completed")
    assert compare().resolved == 1
    clear()
    Order.objects.update(status="cancelled")
    assert kinds(compare()) == ["captured_not_refunded"]
    assert len(staged("payments.tasks.refund_order")) == 1
    assert Finding.objects.get().resolved_at is None


@pytest.mark.promise("P8", "the gateway cannot be read", "reconciliation concludes nothing")
def test_an_unreadable_gateway_concludes_nothing(make_order: MakeOrder, gateway: RunningSandbox) -> None:
    capture(make_order(), status="cancelled")
    compare()
    clear()
    gateway.faults(gateway={"error_rate": 1})

    with pytest.raises(GatewayUnavailable):
        compare()

    assert Finding.objects.get().resolved_at is None
    assert staged() == []


def test_the_task_tries_again_when_the_gateway_fails(make_order: MakeOrder, gateway: RunningSandbox) -> None:
    gateway.faults(gateway={"error_rate": 0.5, "rate_limit_rate": 0.3}, seed=4)
    reconcile_task.delay()
    drain()
    assert staged() == []
