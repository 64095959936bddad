"""A thousand keys, each twenty times at once, while web processes are killed: a thousand orders and captures."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from idempotency.models import Record
from orders.models import ApiKey, Order
from orders.seed import seed_demo
from outbox.models import OutboxMessage
from outbox.testing import drain
from tests.lab.sandbox_fixture import RunningSandbox
from tests.orders.test_killed_web import Killer, order
from tests.support.processes import web

pytestmark = [pytest.mark.proof, pytest.mark.django_db(transaction=True)]

KEYS = 1_000
DUPLICATES = 20


def test_a_thousand_keys_under_kills_are_a_thousand_orders(
    clean: None, sandbox_settings: RunningSandbox, settings: Any, figure: Callable[[str], None]
) -> None:
    """And as many captures. Each key is sent twenty times at once."""
    seed_demo()
    raw = ApiKey.issue("shop")[1]
    keys = [str(uuid.uuid4()) for _ in range(KEYS)]
    options = ("--preload", "--workers", "2", "--threads", "10")
    with web(*options, env={"ORDERS_PER_SECOND": "1000000"}) as (process, url):
        killer = Killer(process, answers_per_kill=100)
        with ThreadPoolExecutor(DUPLICATES) as pool:
            # One key after the other, so that its twenty requests meet.
            repeated = [key for key in keys for _ in range(DUPLICATES)]
            answers = list(pool.map(lambda key: order(url, raw, key, killer), repeated))
    assert killer.kills >= 100
    assert len(set(answers)) == Order.objects.count() == Record.objects.count() == KEYS
    for number in range(0, len(answers), DUPLICATES):
        assert len(set(answers[number : number + DUPLICATES])) == 1, "one key was answered with two orders"
    OutboxMessage.objects.exclude(task="orders.tasks.process_order").delete()
    settings.OUTBOX_EVENTS = {**settings.OUTBOX_EVENTS, "order.completed": []}
    drain()
    captures = sandbox_settings.ledger("charges")
    figure(
        f"{len(answers)} answered requests over {KEYS} keys, {killer.kills} kills, {len(captures)} captures"
    )
    assert len(captures) == len({entry["order_id"] for entry in captures}) == KEYS
    assert Order.objects.filter(status="completed", processing_count=1).count() == KEYS
