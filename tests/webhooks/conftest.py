import socket

import pytest
from django.db import transaction

import outbox
from orders.models import Customer, Order
from tests.lab.sandbox_fixture import RunningSandbox
from webhooks import tasks
from webhooks.models import Subscription

URL = "https://example.com/hook"


@pytest.fixture
def order() -> Order:
    customer = Customer.objects.create(name="Ann", email="ann@example.com")
    return Order.objects.create(customer=customer, total_cents=9999, receipt_email="private@example.com")


@pytest.fixture
def subscription(order: Order) -> Subscription:
    return Subscription.objects.create(customer_id=order.customer_id, url=URL)


@pytest.fixture
def hook(sandbox: RunningSandbox) -> str:
    """A merchant's endpoint at the sandbox."""
    return f"{sandbox.url}/merchants/7/webhooks"


def publish(order: Order, event: str = "order.completed") -> None:
    with transaction.atomic():
        outbox.enqueue(tasks.publish_event.s(event=event, order_id=order.pk))


def read_request(peer: socket.socket) -> bytes:
    """A whole request whose body is `{}`. Closing with a part unread would reset the connection, answer and all."""
    received = b""
    while not received.endswith(b"{}") and (more := peer.recv(65536)):
        received += more
    return received
