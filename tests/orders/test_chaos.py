"""Random failures, repeated messages: every order completes, and completes once."""

import random
import threading
from collections import Counter
from typing import Any
from unittest.mock import MagicMock

import pytest
from django.db import connection
from pytest_mock import MockerFixture

import outbox
from orders.models import Order
from orders.tasks import process_order
from outbox.testing import drain
from payments.gateway import GatewayUnavailable
from tests.orders.conftest import place, quiet, units


def flaky(dice: random.Random, captured: Counter[str], lock: threading.Lock) -> Any:
    """A gateway that fails three times in ten, half of them after it took the money, and honours its keys."""

    def charge(*_args: Any, idempotency_key: str, **_kwargs: Any) -> MagicMock:
        with lock:
            fate = dice.random()
            if fate >= 0.15:
                captured[idempotency_key] |= 1
        if fate < 0.3:
            raise GatewayUnavailable("Random chaos failure")
        return MagicMock(id=f"pi_{idempotency_key}")

    return charge


@pytest.mark.described(
    "`process_order_with_retry`: fifty orders, three failures in ten; each completes, with `processing_count` 1"
)
def test_fifty_orders_with_three_failures_in_ten_all_complete_once(
    shop: None, mocker: MockerFixture, settings: Any
) -> None:
    quiet(mocker)
    # One follower stands for all: what each of them does with an order is proved elsewhere.
    settings.OUTBOX_EVENTS = {
        **settings.OUTBOX_EVENTS,
        "order.completed": ["orders.tasks.update_inventory"],
    }
    captured: Counter[str] = Counter()
    mocker.patch(
        "payments.gateway.PaymentGateway.charge",
        side_effect=flaky(random.Random(7), captured, threading.Lock()),
    )
    orders = [place() for _ in range(50)]
    for order in orders:
        outbox.enqueue(process_order.s(order.id))  # every message is there twice
    drain()
    for order in orders:
        order.refresh_from_db()
        assert (order.status, order.processing_count) == ("completed", 1)
    assert len(captured) == 50
    assert units()[1:] == (0, 50)


def test_threads_that_process_the_same_orders_under_failures_complete_each_once(
    busy_shop: None, mocker: MockerFixture
) -> None:
    captured: Counter[str] = Counter()
    mocker.patch(
        "payments.gateway.PaymentGateway.charge",
        side_effect=flaky(random.Random(7), captured, threading.Lock()),
    )
    order_ids = [place().id for _ in range(20)]
    errors: list[BaseException] = []

    def work() -> None:
        mine = order_ids * 3
        random.Random(threading.get_ident()).shuffle(mine)
        try:
            for order_id in mine:
                for _ in range(50):
                    try:
                        status = process_order(order_id)["status"]
                    except GatewayUnavailable:
                        continue
                    if status != "in_progress":
                        break
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors
    counts = Order.objects.values_list("status", "processing_count").distinct()
    assert list(counts) == [("completed", 1)]
    assert len(captured) == 20
