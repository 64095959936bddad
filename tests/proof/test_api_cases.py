"""Thousands of generated requests against the real application, every POST twice: no 5xx, and one effect a key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from config.wsgi import application
from orders.models import ApiKey, Order
from orders.seed import seed_demo
from outbox.models import OutboxMessage
from tests.orders.conftest import place

pytestmark = [pytest.mark.proof, pytest.mark.django_db(transaction=True)]

CASES = 5_000
#: Changes that bring a generated body of an order near to one that is taken, so that both sides are explored.
SENSIBLE = {
    "customer_id": 1,
    "currency": "usd",
    "payment_method": "pm_card_visa",
    "receipt_email": "ada@example.com",
}
ITEMS = [{"sku": "WIDGET", "quantity": 1}]


def test_no_generated_request_is_a_server_error(
    clean: None, figure: Callable[[str], None], settings: Any
) -> None:
    """A repeated POST has one effect."""
    settings.ORDERS_PER_SECOND = 1_000_000  # The rate is not under test here.
    seed_demo()
    orders = [place().pk for _ in range(20)]
    key = ApiKey.issue("schemathesis")[1]
    headers = {"Authorization": f"Bearer {key}"}
    schema = schemathesis.openapi.from_wsgi("/api/openapi.json", application)
    operations = [result.ok() for result in schema.get_all_operations()]
    seen: Counter[str] = Counter()
    for operation in operations:
        explore(operation, headers, orders, seen, cases=-(-CASES // len(operations)))
    figure(
        f"{seen.pop('cases')} cases over {len(operations)} operations, {seen.pop('repeated', 0)} POSTs repeated: "
        + ", ".join(f"{count} x {status}" for status, count in sorted(seen.items()))
    )
    placed = Order.objects.count()
    assert OutboxMessage.objects.filter(task="orders.tasks.process_order").count() == placed


def explore(
    operation: Any, headers: dict[str, str], orders: list[int], seen: Counter[str], *, cases: int
) -> None:
    """Send `cases` generated requests of one operation."""

    @settings(
        max_examples=cases,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(case=operation.as_strategy(), near=st.booleans(), order_id=st.sampled_from(orders))
    def send(case: Any, near: bool, order_id: int) -> None:
        if near and "order_id" in (case.path_parameters or {}):
            case.path_parameters["order_id"] = order_id
        if near and isinstance(case.body, dict) and "items" in case.body:
            case.body |= SENSIBLE | {"items": ITEMS}
        first = case.call(headers=headers)
        seen["cases"] += 1
        seen[str(first.status_code)] += 1
        assert first.status_code < 500, f"{case.as_curl_command()}: {first.status_code} {first.text[:500]}"
        if case.method == "POST":
            before = Order.objects.count()
            second = case.call(headers=headers)
            seen["repeated"] += 1
            assert second.status_code == first.status_code, (
                f"{case.as_curl_command()}: {first.text} {second.text}"
            )
            assert Order.objects.count() == before, f"placed twice: {case.as_curl_command()}"
            if first.status_code < 300:
                assert second.text == first.text

    send()
