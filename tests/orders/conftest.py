"""A shop with customers, goods and a key, and short words for what the tests do with it."""

import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import MagicMock

import pytest
from django.test import Client
from pytest_mock import MockerFixture

import outbox
from orders.models import ApiKey, Order, Product
from orders.seed import seed_demo
from orders.services import OrderService, place_order
from outbox.models import OutboxMessage
from outbox.testing import clear, drain
from resilience.breaker import reset_all
from tests.conftest import flush_redis

Call = Callable[..., Any]


@pytest.fixture(autouse=True)
def _closed_circuits_and_full_buckets() -> Iterator[None]:
    flush_redis()
    reset_all()
    yield
    reset_all()


@pytest.fixture
def shop(db: None) -> None:
    """Customers 1 to 20, and the SKUs WIDGET, GADGET and GIZMO in stock."""
    seed_demo()


@pytest.fixture
def busy_shop(transactional_db: None) -> None:
    """The same shop with committed data, for tests whose threads must see it."""
    seed_demo()


@pytest.fixture
def charge(mocker: MockerFixture) -> MagicMock:
    """The gateway's charge, which succeeds, as the documents patch it."""
    return mocker.patch("payments.gateway.PaymentGateway.charge", return_value=MagicMock(id="txn_123"))


@pytest.fixture
def completed(shop: None, charge: MagicMock) -> Order:
    """An order that was just completed; nothing that follows from it is staged."""
    order = place(quantity=2)
    OrderService.process(order_id=order.id)
    clear()
    return Order.objects.get(pk=order.id)


def place(sku: str = "WIDGET", quantity: int = 1, **given: Any) -> Order:
    """Place an order of one line for customer 1."""
    order: dict[str, Any] = {"customer_id": 1, "currency": "usd", "payment_method": "pm_card_visa"}
    return place_order(**order | given, lines=[(sku, quantity)])


def settle(task: Any, *args: Any) -> OutboxMessage:
    """Enqueue the task and run it, retries included, to its end."""
    message_id = outbox.enqueue(task.s(*args))
    drain()
    return OutboxMessage.objects.get(message_id=message_id)


def units(sku: str = "WIDGET") -> tuple[int, int, int]:
    """How many units are in stock, reserved and shipped."""
    product = Product.objects.get(sku=sku)
    return product.stock, product.reserved, product.shipped


class Caller:
    """An API client with a key."""

    def __init__(self, raw_key: str) -> None:
        self.client = Client(raise_request_exception=False, headers={"Authorization": f"Bearer {raw_key}"})

    def post(
        self, body: Any = None, *, key: str | None = "key-1", path: str = "/api/orders", **extra: Any
    ) -> Any:
        """POST `body` (JSON, or bytes as they are) with an Idempotency-Key."""
        headers = {"Idempotency-Key": key} if key is not None else {}
        return self.client.post(path, data=body, content_type="application/json", headers=headers, **extra)

    def get(self, path: str = "/api/orders", **query: Any) -> Any:
        return self.client.get(path, query)


@pytest.fixture
def api(shop: None) -> Caller:
    """A caller who may see every order."""
    return Caller(ApiKey.issue("test")[1])


def body(**changes: Any) -> dict[str, Any]:
    """A good body, with changes."""
    return {
        "customer_id": 1,
        "currency": "usd",
        "payment_method": "pm_card_visa",
        "items": [{"sku": "WIDGET", "quantity": 2}, {"sku": "GIZMO", "quantity": 1}],
        "receipt_email": "ada@example.com",
        **changes,
    }


def run_all(jobs: list[Callable[[], None]]) -> None:
    """Run each job in a thread of its own, and wait for all."""
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


@pytest.fixture
def pending_order(shop: None) -> Order:
    """As the documents make one."""
    return Order.objects.create(customer_id=1, total_cents=9999, status="pending")


def quiet(mocker: MockerFixture) -> None:
    """Keep what follows an order away from the network."""
    mocker.patch("notifications.services.EmailService.send_confirmation")
    mocker.patch("notifications.services.EmailService.send_receipt")
    mocker.patch("orders.warehouse.call_external_api", return_value={})
    mocker.patch("orders.crm.SyncService.sync")
