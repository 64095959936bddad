"""payments/events.py: events that come late, twice and out of order change what they must and no more."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pytest_mock import MockerFixture

from dlq.models import DeadLetter
from orders.models import Order
from outbox.testing import drain, staged
from payments.events import apply_event
from payments.gateway import transport
from payments.gateway.client import PaymentGateway, Refunded
from payments.models import Refund
from payments.refunds import RefundFailed, refund_order
from payments.tasks import apply_gateway_event
from tests.lab.sandbox_fixture import RunningSandbox
from tests.payments.conftest import MakeOrder, capture
from webhooks.incoming.models import IncomingEvent

Receive = Callable[..., str]
_numbers = itertools.count()


@pytest.fixture
def overtaken(gateway: RunningSandbox, make_order: MakeOrder, mocker: MockerFixture) -> Callable[..., Order]:
    """A cancelled order whose refund is answered only after `happens(refund)`."""
    refund = PaymentGateway.refund

    def order_with(happens: Callable[[Refunded], Any]) -> Order:
        def answered_late(*args: Any, **options: Any) -> Refunded:
            done = refund(*args, **options)
            happens(done)
            return done

        order = make_order()
        capture(order, status="cancelled")
        mocker.patch.object(PaymentGateway, "refund", answered_late)
        return order

    return order_with


@pytest.fixture
def receive(db: None) -> Receive:
    """Stores an event as the receiver does, and returns its id."""

    def store(kind: str, **changed: Any) -> str:
        event_id = f"evt_{next(_numbers)}"
        payload = {"id": event_id, "type": kind, "data": {"object": changed}}
        IncomingEvent.objects.create(event_id=event_id, event_type=kind, payload=payload)
        return event_id

    return store


def refunded(intent: str, *, amount: int = 9999, of: int = 9999) -> dict[str, Any]:
    return {"payment_intent": intent, "refunded": amount == of, "amount_refunded": amount, "currency": "usd"}


def at_the_bank() -> Callable[..., Refunded]:
    """The gateway's refund as of a bank that takes its time: the sandbox's succeeds at once."""
    refund = PaymentGateway.refund
    return lambda *args, **options: replace(refund(*args, **options), status="pending")


@pytest.mark.parametrize("status", ["pending", "processing", "completed"])
def test_a_capture_of_an_order_at_work_or_done_changes_nothing(
    make_order: MakeOrder, receive: Receive, status: str
) -> None:
    make_order(status=status, payment_intent_id="pi_1")
    apply_event(receive("payment_intent.succeeded", id="pi_1"))
    assert staged() == []


@pytest.mark.parametrize("status", ["cancelled", "failed"])
def test_a_capture_of_an_order_that_ended_without_a_sale_is_refunded(
    make_order: MakeOrder, receive: Receive, status: str
) -> None:
    order = make_order(status=status, payment_intent_id="pi_1")
    apply_event(receive("payment_intent.succeeded", id="pi_1"))
    (message,) = staged("payments.tasks.refund_order")
    assert message.kwargs["order_id"] == order.pk
    assert message.correlation_id == f"order-{order.pk}"


def test_a_capture_of_somebody_elses_is_ignored(receive: Receive) -> None:
    apply_event(receive("payment_intent.succeeded", id="pi_of_another_shop"))
    assert staged() == []


def test_a_full_refund_settles_the_pending_row_whatever_arrives_first_and_twice(
    make_order: MakeOrder, receive: Receive
) -> None:
    order = make_order(status="cancelled", payment_intent_id="pi_1")
    event_id = receive("charge.refunded", **refunded("pi_1"))
    for _ in range(2):
        apply_event(event_id)  # Before we have a row of our own: a refund made by hand.
    refund = Refund.objects.get(order=order)
    assert (refund.status, refund.amount_cents) == ("succeeded", 9999)


def test_a_partial_refund_leaves_the_rest_to_our_own(make_order: MakeOrder, receive: Receive) -> None:
    order = make_order(status="cancelled", payment_intent_id="pi_1")
    Refund.objects.create(order=order, payment_intent_id="pi_1", currency="usd")
    apply_event(receive("charge.refunded", **refunded("pi_1", amount=100)))
    assert Refund.objects.get().status == "pending"


def test_a_goodwill_refund_of_a_completed_order_is_no_compensation(
    make_order: MakeOrder, receive: Receive
) -> None:
    make_order(status="completed", payment_intent_id="pi_1")
    apply_event(receive("charge.refunded", **refunded("pi_1")))
    assert not Refund.objects.exists()


@pytest.mark.parametrize(
    "order_of_arrival", list(itertools.permutations(["charge.refunded", "succeeded", "failed"]))
)
def test_a_refund_that_failed_at_the_bank_stays_failed(
    make_order: MakeOrder, receive: Receive, order_of_arrival: tuple[str, ...]
) -> None:
    """In whichever order the events arrive."""
    order = make_order(status="cancelled", payment_intent_id="pi_1")
    Refund.objects.create(
        order=order, payment_intent_id="pi_1", currency="usd", gateway_refund_id="re_1", amount_cents=9999
    )
    for arrival in order_of_arrival:
        if arrival == "charge.refunded":
            apply_event(receive("charge.refunded", **refunded("pi_1")))
        else:
            apply_event(receive("refund.updated", id="re_1", status=arrival, amount=9999))
    assert Refund.objects.get().status == "failed"


def test_two_refunds_have_the_same_total_in_either_order(
    make_order: MakeOrder, gateway: RunningSandbox, receive: Receive, mocker: MockerFixture
) -> None:
    """One of them was made by hand."""
    at_once, later = make_order(), make_order()
    for order in (at_once, later):
        capture(order, status="cancelled")
        transport.client().v1.refunds.create({"payment_intent": order.payment_intent_id, "amount": 2000})
    refund_order(at_once.pk)
    mocker.patch.object(PaymentGateway, "refund", at_the_bank())
    pending = refund_order(later.pk)
    assert pending.status == "pending"
    apply_event(receive("refund.updated", id=pending.gateway_refund_id, status="succeeded", amount=7999))
    assert list(Refund.objects.values_list("status", "amount_cents")) == [("succeeded", 9999)] * 2


def test_a_banks_refusal_counts_after_an_event_overtook_the_answer(
    overtaken: Callable[..., Order], receive: Receive
) -> None:
    """The event of the refund overtook the gateway's answer."""
    order = overtaken(
        lambda done: apply_event(receive("charge.refunded", **refunded(order.payment_intent_id)))
    )
    assert refund_order(order.pk).status == "succeeded"
    (made,) = PaymentGateway._refunds_of(order.payment_intent_id)
    apply_event(receive("refund.failed", id=made.id, status="failed"))
    assert Refund.objects.get().status == "failed"


def test_a_rerun_finds_the_refund_that_an_event_reported(
    overtaken: Callable[..., Order], receive: Receive, gateway: RunningSandbox, mocker: MockerFixture
) -> None:
    """The first run died before it wrote the answer."""

    def killed(done: Refunded) -> None:
        apply_event(receive("charge.refunded", **refunded(order.payment_intent_id)))
        raise KeyboardInterrupt

    order = overtaken(killed)
    with pytest.raises(KeyboardInterrupt):
        refund_order(order.pk)
    mocker.stopall()
    assert Refund.objects.get().gateway_refund_id == ""
    (made,) = PaymentGateway._refunds_of(order.payment_intent_id)
    assert refund_order(order.pk).gateway_refund_id == made.id
    assert len(gateway.ledger("refunds")) == 1


def test_a_banks_refusal_of_a_refund_known_by_event_counts(make_order: MakeOrder, receive: Receive) -> None:
    """Known by its event only."""
    for intent in ("pi_1", "pi_2"):
        make_order(status="cancelled", payment_intent_id=intent)
        apply_event(receive("charge.refunded", **refunded(intent)))
    apply_event(receive("refund.failed", id="re_by_hand", status="failed", payment_intent="pi_1"))
    told = Refund.objects.order_by("payment_intent_id").values_list("status", "gateway_refund_id")
    assert list(told) == [("failed", "re_by_hand"), ("succeeded", "")]


def test_an_answer_does_not_overwrite_a_banks_earlier_refusal(
    overtaken: Callable[..., Order], receive: Receive
) -> None:
    """Earlier than the answer is written."""
    order = overtaken(
        lambda done: apply_event(
            receive("refund.failed", id=done.id, status="failed", payment_intent=order.payment_intent_id)
        )
    )
    with pytest.raises(RefundFailed, match=f"of order {order.pk} has failed"):
        refund_order(order.pk)
    assert Refund.objects.get().status == "failed"


def test_the_refund_after_a_refused_one_settles_the_row(
    make_order: MakeOrder, gateway: RunningSandbox, receive: Receive, mocker: MockerFixture
) -> None:
    """Also when the bank takes its time."""
    order = make_order()
    capture(order, status="cancelled")
    Refund.objects.create(
        order=order, payment_intent_id=order.payment_intent_id, currency="usd", status="failed",
        gateway_refund_id="re_refused", settled_at=order.created_at,
    )  # fmt: skip
    mocker.patch.object(PaymentGateway, "refund", at_the_bank())
    row = refund_order(order.pk)
    assert (row.status, row.settled_at) == ("pending", None)
    apply_event(receive("refund.updated", id="re_refused", status="failed"))  # once more, and late
    apply_event(receive("refund.updated", id=row.gateway_refund_id, status="succeeded"))
    row.refresh_from_db()
    assert (row.status, row.amount_cents) == ("succeeded", 9999)


def test_events_of_no_interest_are_done(receive: Receive) -> None:
    apply_event(receive("customer.created", id="cus_1"))


def test_the_task_applies_a_stored_event(make_order: MakeOrder, receive: Receive) -> None:
    """An unknown one is a dead letter."""
    order = make_order(status="cancelled", payment_intent_id="pi_1")
    apply_gateway_event.delay(event_id=receive("charge.refunded", **refunded("pi_1")))
    apply_gateway_event.delay(event_id="evt_never_stored")
    drain()
    assert Refund.objects.get(order_id=order.pk).status == "succeeded"
    assert DeadLetter.objects.get().kwargs == {"event_id": "evt_never_stored"}
    assert Order.objects.get().status == "cancelled"
