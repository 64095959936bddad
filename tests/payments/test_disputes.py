"""payments/disputes.py: a chargeback is seen, whatever its events do, and a refund does not fight with the bank."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.urls import reverse
from pytest_django.live_server_helper import LiveServer
from pytest_mock import MockerFixture

from orders.api.journey import journey_of
from orders.models import Order
from outbox.testing import drain
from payments import disputes
from payments.events import apply_event
from payments.gateway import transport
from payments.gateway.errors import GatewayMisconfigured
from payments.models import Dispute, Finding
from payments.selectors import stats
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
from tests.support.processes import await_
from webhooks.incoming.models import IncomingEvent

_numbers = itertools.count()
STARTED = 1_700_000_000

Receive = Callable[..., str]


@pytest.fixture
def receive(db: None) -> Receive:
    """Stores an event about `du_1` as the receiver does, and applies it."""

    def receive(kind: str, *, at: int = 0, **changed: Any) -> str:
        dispute = {
            "id": "du_1",
            "object": "dispute",
            "amount": 9999,
            "charge": "ch_1",
            "created": STARTED,
            "currency": "usd",
            "evidence_details": {"due_by": STARTED + 604_800},
            "payment_intent": "pi_1",
            "reason": "fraudulent",
            "status": "needs_response",
        } | changed
        event_id = f"evt_{next(_numbers)}"
        kind = f"charge.dispute.{kind}"
        payload = {"id": event_id, "type": kind, "created": STARTED + at, "data": {"object": dispute}}
        IncomingEvent.objects.create(event_id=event_id, event_type=kind, payload=payload)
        apply_event(event_id)
        return event_id

    return receive


def test_dispute_marks_its_order_and_is_a_finding_for_a_person(
    make_order: MakeOrder, receive: Receive
) -> None:
    order = make_order(status="completed", payment_intent_id="pi_1")
    receive("created")
    [shown] = journey_of(order).disputes
    assert (shown.status, shown.amount, shown.currency) == ("open", 9999, "usd")
    dispute = Dispute.objects.get()
    assert (dispute.order_id, dispute.state, dispute.amount_cents) == (order.pk, "open", 9999)
    finding = Finding.objects.get()
    assert (finding.kind, finding.action, finding.order_id) == ("disputed", "needs_a_person", order.pk)
    assert "99.99 USD disputed (fraudulent): needs_response, evidence is due by 2023-11-21" in finding.detail
    assert stats()["for_a_person"]["disputed"] == 1


#: The life of a dispute that is won: event, status then, and seconds since the dispute.
WON = [
    ("created", "needs_response", 0),
    ("funds_withdrawn", "needs_response", 1),
    ("updated", "under_review", 2),
    ("closed", "won", 3),
    ("funds_reinstated", "won", 4),
]


@pytest.mark.promise(
    "P5",
    "a payment is disputed at the customer's bank",
    "a finding for a person, in whatever order its events come, and without them",
    celery="nothing: it is an event",
)
@pytest.mark.parametrize("second", [1, 0], ids=["each a second", "all in one second"])
def test_dispute_ends_the_same_in_every_order_of_arrival(
    make_order: MakeOrder, receive: Receive, second: int
) -> None:
    order = make_order(status="completed", payment_intent_id="pi_1")

    for arrivals in itertools.permutations(WON):
        for kind, status, after in (*arrivals, arrivals[0]):
            receive(kind, status=status, at=after * second)

        dispute = Dispute.objects.get()
        assert (dispute.state, dispute.gateway_status, dispute.order_id) == ("won", "won", order.pk), arrivals
        assert dispute.withdrawn_at
        assert dispute.reinstated_at
        assert dispute.closed_at
        assert open_findings() == []
        dispute.delete()


@pytest.mark.django_db(transaction=True)
def test_events_applied_at_once_end_the_same(make_order: MakeOrder, receive: Receive) -> None:
    order = make_order(status="completed", payment_intent_id="pi_1")
    together = threading.Barrier(len(WON))

    def apply(event: tuple[str, str, int]) -> None:
        kind, status, after = event
        try:
            together.wait(10)
            receive(kind, status=status, at=after)
        finally:
            connection.close()

    for _ in range(5):
        with ThreadPoolExecutor(len(WON)) as pool:
            list(pool.map(apply, WON))
        dispute = Dispute.objects.get()
        assert (dispute.state, dispute.order_id) == ("won", order.pk)
        assert dispute.withdrawn_at
        assert dispute.reinstated_at
        assert open_findings() == []
        dispute.delete()


def test_dispute_under_review_waits_for_the_bank_and_not_for_a_person(
    receive: Receive, make_order: MakeOrder
) -> None:
    make_order(status="completed", payment_intent_id="pi_1")
    receive("created")
    receive("updated", status="under_review", at=1)
    assert open_findings() == [("disputed", "waits_for_the_bank")]
    assert stats()["for_a_person"]["disputed"] == 0
    receive("updated", status="appeal_needs_response", at=2)
    assert open_findings() == [("disputed", "needs_a_person")]


def test_lost_dispute_is_a_finding_until_a_person_has_handled_it(
    receive: Receive, make_order: MakeOrder, admin_client: Client, gateway: RunningSandbox
) -> None:
    order = make_order(status="completed", payment_intent_id="pi_1")
    receive("closed", status="lost", at=5)
    receive("created")
    assert open_findings() == [("dispute_lost", "needs_a_person")]
    assert "dispute_lost" in kinds(compare())
    shown = admin_client.get(reverse("admin:orders_order_change", args=[order.pk])).content.decode()
    assert "du_1: lost (lost), fraudulent, 99.99 USD" in shown
    url = reverse("admin:payments_dispute_changelist")
    asked = {"action": "handled", "_selected_action": [Dispute.objects.get().pk]}
    assert "1 lost disputes are marked" in admin_client.post(url, asked, follow=True).content.decode()
    assert Dispute.objects.get().handled_by == "admin"
    assert "dispute_lost" not in kinds(compare())
    assert ("dispute_lost", "needs_a_person") not in open_findings()


def test_dispute_of_a_payment_that_is_no_orders_is_a_finding_too(receive: Receive) -> None:
    receive("created", payment_intent="pi_of_another_shop")
    finding = Finding.objects.get()
    assert (finding.kind, finding.order_id) == ("disputed", None)
    assert "pi_of_another_shop is no order's payment" in finding.detail


def test_event_with_the_least_that_a_dispute_has_is_enough(make_order: MakeOrder, db: None) -> None:
    order = make_order(status="completed", payment_id="pi_1")
    told = {
        "id": "du_1",
        "amount": 1,
        "currency": "usd",
        "status": "needs_response",
        "payment_intent": {"id": "pi_1"},
    }
    payload = {"id": "evt_least", "type": "charge.dispute.created", "data": {"object": told}}
    IncomingEvent.objects.create(event_id="evt_least", event_type=payload["type"], payload=payload)
    apply_event("evt_least")
    assert Dispute.objects.get().order_id == order.pk


def test_state_that_does_not_exist_is_refused_by_the_database(receive: Receive) -> None:
    receive("created")
    for wrong in ({"state": "forgotten"}, {"state": "won"}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Dispute.objects.update(**wrong)


@pytest.mark.promise(
    "P5",
    "a payment is disputed at the customer's bank",
    "a finding for a person, in whatever order its events come, and without them",
    celery="nothing: it is an event",
)
def test_dispute_without_an_event_is_learned_from_the_gateways_list(
    make_order: MakeOrder, gateway: RunningSandbox
) -> None:
    order = make_order()
    capture(order, status="completed")
    Order.objects.update(payment_id=order.payment_intent_id)
    dispute_id = dispute_at_the_bank(gateway, order)

    assert kinds(compare(heal=False)) == []
    assert kinds(compare()) == ["disputed"]
    assert Dispute.objects.get().order_id == order.pk

    answer_with("winning_evidence", dispute_id)
    # Older than the window: followed all the same.
    assert kinds(compare(window=timedelta(seconds=-60))) == []
    assert open_findings() == []
    assert Dispute.objects.get().state == "won"


def test_gateway_that_tells_of_no_disputes_ends_no_reconciliation(
    receive: Receive, gateway: RunningSandbox, mocker: MockerFixture
) -> None:
    receive("created")
    mocker.patch.object(disputes, "_page", side_effect=GatewayMisconfigured("may not read disputes"))
    assert kinds(compare()) == ["disputed"]


@pytest.mark.django_db(transaction=True)
def test_signed_events_of_the_gateway_reach_the_order(
    live_server: LiveServer, sandbox_settings: RunningSandbox, make_order: MakeOrder
) -> None:
    order = make_order()
    capture(order, status="completed")
    sandbox_settings.send_events_to(live_server.url)
    dispute_id = dispute_at_the_bank(sandbox_settings, order)
    transport.client().v1.disputes.close(dispute_id)
    lost = IncomingEvent.objects.filter(event_type="charge.dispute.closed")
    await_(lost.exists, "the event of the end")
    await_(
        lambda: IncomingEvent.objects.filter(event_type__startswith="charge.dispute").count() == 3,
        "all events",
    )
    sandbox_settings.send_events_to("")
    drain()
    dispute = Dispute.objects.get(dispute_id=dispute_id)
    assert (dispute.order_id, dispute.state) == (order.pk, "lost")
    assert dispute.withdrawn_at
    assert ("dispute_lost", "needs_a_person") in open_findings()
