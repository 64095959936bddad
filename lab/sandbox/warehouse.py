"""The warehouse: ships once per idempotency key, and once per call for callers that send none."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import Any

from lab.sandbox.ledger import Ledger
from lab.sandbox.objects import new_id
from lab.sandbox.wire import Answer, Refused, Request, Route, Service, problem

WAREHOUSE = Service("warehouse", error_status=503, refusal=problem)

_bad = partial(problem, 422)


class Warehouse:
    """POST /warehouse/shipments: 201 and the shipment; 200 and the same one when its key was seen before."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def routes(self) -> list[Route]:
        return [Route("POST", "/warehouse/shipments", self._ship, WAREHOUSE)]

    def _ship(self, request: Request) -> Answer:
        wanted = request.json_object()
        _check(wanted)
        canonical = json.dumps(wanted, sort_keys=True)
        key = request.header("Idempotency-Key") or None
        request.work()
        with self._ledger.transaction() as db:
            known = db.execute("SELECT * FROM shipment WHERE idempotency_key = ?", (key,)).fetchone()
            if known is None:
                shipment_id = new_id("shp")
                db.execute(
                    "INSERT INTO shipment (id, idempotency_key, order_id, request, created)"
                    " VALUES (?, ?, ?, ?, ?)",
                    (shipment_id, key, str(wanted["order_id"]), canonical, int(time.time())),
                )
        if known is None:
            return Answer.of(201, wanted | {"id": shipment_id, "status": "accepted"})
        if known["request"] != canonical:
            raise Refused(
                problem(409, "this Idempotency-Key was used for another shipment", "Idempotency-Key")
            )
        return Answer.of(200, wanted | {"id": known["id"], "status": "accepted"})


def _check(wanted: dict[str, Any]) -> None:
    order_id = wanted.get("order_id")
    if isinstance(order_id, bool) or not isinstance(order_id, int | str) or not order_id:
        raise Refused(_bad("an order's id is required", "order_id"))
    items = wanted.get("items")
    if not isinstance(items, list) or not items:
        raise Refused(_bad("at least one item is required", "items"))
    for number, item in enumerate(items):
        if not isinstance(item, dict) or not isinstance(item.get("sku"), str) or not item["sku"]:
            raise Refused(_bad("an item needs a SKU", f"items[{number}].sku"))
        quantity = item.get("quantity")
        if isinstance(quantity, bool) or not isinstance(quantity, int) or quantity < 1:
            raise Refused(_bad("a quantity is a whole number from 1", f"items[{number}].quantity"))
