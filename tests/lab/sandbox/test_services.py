"""Warehouse, CRM and merchants: what they take, what they refuse, and what the ledger then says."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from standardwebhooks.webhooks import Webhook

from tests.lab.sandbox_fixture import RunningSandbox

SHIPMENT = {"order_id": 7, "items": [{"sku": "WIDGET", "quantity": 2}]}
SECRET = "whsec_" + base64.b64encode(b"a secret of twenty-four b").decode()


def ship(sandbox: RunningSandbox, content: Any = SHIPMENT, key: str = "") -> requests.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return requests.post(f"{sandbox.url}/warehouse/shipments", json=content, headers=headers, timeout=5)


def sync(sandbox: RunningSandbox, **record: Any) -> requests.Response:
    return requests.post(f"{sandbox.url}/crm/orders", json=record, timeout=5)


def deliver(
    sandbox: RunningSandbox,
    webhook_id: str,
    *,
    merchant: int = 1,
    body: str = '{"type": "order.completed"}',
    secret: str = SECRET,
    age: timedelta = timedelta(),
) -> requests.Response:
    at = datetime.now(UTC) - age
    headers = {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(webhook_id, at, body),
    }
    return requests.post(
        f"{sandbox.url}/merchants/{merchant}/webhooks", data=body, headers=headers, timeout=5
    )


def test_the_warehouse_ships_once_per_key(sandbox: RunningSandbox) -> None:
    first, again = ship(sandbox, key="order-7"), ship(sandbox, key="order-7")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    [shipment] = sandbox.ledger("shipments", order_id=7)
    assert (shipment["id"], shipment["order_id"]) == (first.json()["id"], "7")
    assert shipment["items"] == SHIPMENT["items"]


def test_the_warehouse_ships_every_call_without_a_key(sandbox: RunningSandbox) -> None:
    """The ledger shows each of them."""
    assert [ship(sandbox).status_code for _ in range(2)] == [201, 201]
    assert sandbox.summary("shipments") == {"count": 2, "orders": 1, "repeated": ["7"]}


def test_the_warehouse_refuses_a_key_for_another_shipment(sandbox: RunningSandbox) -> None:
    ship(sandbox, key="k")
    assert ship(sandbox, SHIPMENT | {"order_id": 8}, key="k").status_code == 409
    assert sandbox.summary("shipments")["count"] == 1


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (SHIPMENT | {"order_id": None}, "order_id"),
        ({"items": SHIPMENT["items"]}, "order_id"),
        ({"order_id": 7}, "items"),
        ({"order_id": 7, "items": []}, "items"),
        ({"order_id": 7, "items": ["WIDGET"]}, "items[0].sku"),
        ({"order_id": 7, "items": [{"sku": "WIDGET", "quantity": 0}]}, "items[0].quantity"),
        ({"order_id": 7, "items": [{"sku": "WIDGET", "quantity": True}]}, "items[0].quantity"),
    ],
)
def test_the_warehouse_names_the_field_that_it_refuses(
    sandbox: RunningSandbox, content: Any, field: str
) -> None:
    answer = ship(sandbox, content)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert sandbox.ledger("shipments") == []


def test_the_crm_keeps_one_record_per_order_and_counts_the_syncs(sandbox: RunningSandbox) -> None:
    assert sync(sandbox, order_id=7, email="a@b.example", total_cents=4990, currency="eur").status_code == 201
    assert sync(sandbox, order_id=7, email="a@b.example", status="completed").status_code == 200
    [record] = sandbox.ledger("crm", order_id=7)
    assert (record["syncs"], record["record"]["status"]) == (2, "completed")


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ({}, "order_id"),
        ({"order_id": 0}, "order_id"),
        ({"order_id": 7, "email": "not an address"}, "email"),
        ({"order_id": 7, "customer_email": ""}, "customer_email"),
        ({"order_id": 7, "total_cents": -1}, "total_cents"),
        ({"order_id": 7, "total_cents": 49.9}, "total_cents"),
        ({"order_id": 7, "currency": "bitcoin"}, "currency"),
        ({"order_id": 7, "status": ""}, "status"),
    ],
)
def test_the_crm_names_the_field_that_it_refuses(
    sandbox: RunningSandbox, record: dict[str, Any], field: str
) -> None:
    answer = sync(sandbox, **record)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert sandbox.ledger("crm") == []


def test_a_merchant_records_each_delivery_and_whether_it_is_a_duplicate(sandbox: RunningSandbox) -> None:
    sandbox.register_merchant(1, SECRET)
    assert deliver(sandbox, "evt_2").json() == {"received": True, "duplicate": False}
    assert deliver(sandbox, "evt_1").json() == {"received": True, "duplicate": False}
    assert deliver(sandbox, "evt_2").json() == {"received": True, "duplicate": True}

    two, one = sandbox.ledger("webhooks", merchant=1)
    assert [(entry["webhook_id"], entry["deliveries"]) for entry in (two, one)] == [
        ("evt_2", 2),
        ("evt_1", 1),
    ]
    assert two["arrival"] < one["arrival"]
    assert two["verified"]
    assert two["payload"] == {"type": "order.completed"}
    assert sandbox.summary("webhooks") == {"count": 2, "deliveries": 3, "refused": 0}


def test_the_same_webhook_id_at_two_merchants_is_two_webhooks(sandbox: RunningSandbox) -> None:
    for merchant in (1, 2):
        assert not deliver(sandbox, "evt_1", merchant=merchant).json()["duplicate"]
    assert sandbox.summary("webhooks")["count"] == 2
    assert sandbox.summary("webhooks", merchant=2)["count"] == 1


@pytest.mark.parametrize(
    "forgery",
    [
        {"secret": "whsec_" + base64.b64encode(b"another secret, as long a").decode()},
        {"age": timedelta(minutes=6)},
        {"age": timedelta(minutes=-6)},
    ],
)
def test_a_merchant_with_a_secret_refuses_a_forged_or_stale_delivery(
    sandbox: RunningSandbox, forgery: dict[str, Any]
) -> None:
    sandbox.register_merchant(1, SECRET)
    assert deliver(sandbox, "evt_1", **forgery).status_code == 401
    assert sandbox.summary("webhooks") == {"count": 0, "deliveries": 0, "refused": 1}
    assert deliver(sandbox, "evt_1").json()["duplicate"] is False


def test_a_merchant_without_a_secret_accepts_and_says_unverified(sandbox: RunningSandbox) -> None:
    assert deliver(sandbox, "evt_1").status_code == 200
    assert sandbox.ledger("webhooks")[0]["verified"] is False


def test_a_delivery_without_an_id_is_refused(sandbox: RunningSandbox) -> None:
    """So is a secret that is none."""
    answer = requests.post(f"{sandbox.url}/merchants/1/webhooks", data="{}", timeout=5)
    assert (answer.status_code, answer.json()["field"]) == (400, "webhook-id")
    for secret in ("", "whsec_", "whsec_!", None):
        answer = requests.put(f"{sandbox.url}/merchants/1", json={"secret": secret}, timeout=5)
        assert (answer.status_code, answer.json()["field"]) == (422, "secret")
