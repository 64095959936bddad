"""Whether an order has had all its effects: the same ones whatever the subject, read from its tables and its outside world."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

import psycopg2
import redis

from lab.collect import Sandbox

#: What each order must have had, in tables that every version has. An open message is one that the journal of a subject with
#: an outbox would run; stock Celery's table is empty.
_READ = """
SELECT (SELECT count(*) FROM orders_order WHERE status = 'completed'),
       (SELECT count(*) FROM orders_order WHERE stock_shipped_at IS NOT NULL),
       (SELECT count(*) FROM orders_order WHERE counted_at IS NOT NULL),
       (SELECT count(*) FROM notifications_emaillog WHERE status = 'sent') / 2,
       (SELECT count(*) FROM payments_invoice),
       (SELECT count(*) FROM webhooks_delivery WHERE status = 'sent'),
       (SELECT count(*) FROM webhooks_incomingevent),
       (SELECT count(*) FROM outbox_outboxmessage WHERE status IN ('scheduled', 'blocked', 'pending', 'published'))
"""
_NAMES = ("completed", "shipped", "counted", "emails / 2", "invoices", "webhooks", "gateway's events")
_QUEUES = ("critical", "high", "default", "low")


class Effects:
    """Reads them, on connections of its own, until `close`."""

    def __init__(self, database_url: str, sandbox_url: str) -> None:
        self._database = psycopg2.connect(database_url, connect_timeout=5)
        self._database.autocommit = True
        self._broker = redis.Redis.from_url(os.environ["BROKER_URL"])
        self._sandbox = Sandbox(sandbox_url)

    def missing(self, orders: int) -> str:
        """What is still to come of so many orders; '' when each has had all its effects and nothing is left to run."""
        with self._database.cursor() as cursor:
            cursor.execute(_READ)
            *counts, open_messages = cursor.fetchone()
        if late := [f"{name} {count}" for name, count in zip(_NAMES, counts, strict=True) if count < orders]:
            return f"of {orders} orders: {', '.join(late)}"
        pipeline = self._broker.pipeline()
        for queue in _QUEUES:
            pipeline.llen(queue)
        pipeline.hlen("unacked")
        if left := open_messages + sum(pipeline.execute()):
            return f"{left} messages"
        return "gateway's events" if self._sandbox.events_due() else ""

    def products_table(self) -> int:
        """The number by which the server's log names the products' table."""
        with self._database.cursor() as cursor:
            cursor.execute("SELECT 'orders_product'::regclass::oid::int")
            return int(cursor.fetchone()[0])

    def check_ledgers(self, orders: int) -> None:
        """Raises RuntimeError unless the warehouse, the CRM and the gateway have had so many orders, too."""
        counts = {name: len(self._sandbox.ledger(name)) for name in ("charges", "shipments", "crm")}
        if wrong := {name: count for name, count in counts.items() if count != orders}:
            raise RuntimeError(f"the sandbox's ledger has not {orders} of each: {wrong}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()
        self._broker.close()
