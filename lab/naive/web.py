"""`POST /api/orders` as the tutorial has it: save the order, commit, `.delay()`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from lab.naive.shop import PRICES, cursor
from lab.naive.tasks import process_order

Start = Callable[[str, list[tuple[str, str]]], Any]


def application(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    """Every POST is a new order: an Idempotency-Key is not looked at."""
    if environ["REQUEST_METHOD"] != "POST":
        return _answer(start, "200 OK", {"status": "ready"})
    body = json.loads(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
    if not environ["PATH_INFO"].endswith("/orders"):
        return _answer(start, "404 Not Found", {})
    subtotal = sum(PRICES[item["sku"]] * item["quantity"] for item in body["items"])
    with cursor() as rows:
        rows.execute(
            "INSERT INTO naive_order (tag, currency, subtotal_cents, total_cents) VALUES (%s, %s, %s, %s) RETURNING id",
            [body["receipt_email"], body["currency"], subtotal, subtotal],
        )
        order_id = rows.fetchone()[0]
    # A crash here, or a broker that is down, and the order is in the database and no message will process it.
    process_order.delay(order_id)
    return _answer(start, "202 Accepted", {"id": order_id})


def _answer(start: Start, status: str, content: dict[str, Any]) -> Iterable[bytes]:
    start(status, [("Content-Type", "application/json")])
    return [json.dumps(content).encode()]
