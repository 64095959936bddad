from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import requests

from orders.models import Customer, Order
from payments.gateway import calls, transport
from payments.gateway.client import PaymentGateway
from payments.models import Finding
from payments.reconcile import Reconciliation, reconcile
from tests.lab.sandbox_fixture import RunningSandbox

MakeOrder = Callable[..., Order]


@pytest.fixture(autouse=True)
def _closed_circuit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One test's failures must not open another's circuit, and the tests' short delays must not half-open it."""
    monkeypatch.setattr(calls.breaker, "_recovery_timeout", 30)
    calls.breaker.reset()
    yield
    calls.breaker.reset()


@pytest.fixture
def make_order(db: None) -> MakeOrder:
    """An order of one customer over 99.99 usd, with whatever else is asked for."""

    def make(**values: Any) -> Order:
        if "customer" not in values and "customer_id" not in values:
            values["customer"] = Customer.objects.create(name="Ada Lovelace", email="ada@example.com")
        return Order.objects.create(**{"total_cents": 9999, "payment_method": "pm_card_visa"} | values)

    return make


def capture(order: Order, **changes: Any) -> str:
    """Captured at the gateway, and the order as `changes` say."""
    payment = PaymentGateway.charge(1, order.total_cents, idempotency_key=f"order-{order.pk}")
    values = {"payment_intent_id": payment.id} | changes
    Order.objects.filter(pk=order.pk).update(**values)
    order.refresh_from_db()
    return payment.id


#: The sandbox's clock has whole seconds: an intent of this second must count as older than the grace.
NO_GRACE = timedelta(seconds=-2)


def compare(**options: Any) -> Reconciliation:
    return reconcile(**{"grace": NO_GRACE} | options)


def kinds(run: Reconciliation) -> list[str]:
    return sorted(difference.kind for difference in run.differences)


def open_findings() -> list[tuple[str, str]]:
    """Kind and action of what is open."""
    return list(Finding.objects.filter(resolved_at=None).order_by("kind").values_list("kind", "action"))


def dispute_at_the_bank(sandbox: RunningSandbox, order: Order, **how: Any) -> str:
    """The customer disputes the order's payment; returns the dispute's id."""
    asked = {"payment_intent": order.payment_intent_id, **how}
    answer = requests.post(f"{sandbox.url}/disputes", json=asked, timeout=10)
    answer.raise_for_status()
    return str(answer.json()["id"])


def answer_with(evidence: str, dispute_id: str) -> None:
    """Evidence, by hand in the gateway's dashboard: `winning_evidence`, `losing_evidence`, or any other text."""
    transport.client().v1.disputes.update(dispute_id, {"evidence": {"uncategorized_text": evidence}})


@pytest.fixture
def gateway(sandbox_settings: RunningSandbox, db: None) -> RunningSandbox:
    return sandbox_settings
