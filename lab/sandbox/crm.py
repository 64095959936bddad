"""The CRM: keeps one record per order, and refuses invalid data with the name of the field."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

from lab.sandbox.currencies import CURRENCIES
from lab.sandbox.ledger import Ledger
from lab.sandbox.wire import Answer, Refused, Request, Route, Service, problem

CRM = Service("crm", error_status=503, refusal=problem)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _mail_address(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)*", value) is not None


# What a field must be when it is sent; every other field is taken as it comes.
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "order_id": (
        lambda value: isinstance(value, str | int) and not isinstance(value, bool) and bool(value),
        "an order's id",
    ),
    "email": (_mail_address, "an email address"),
    "customer_email": (_mail_address, "an email address"),
    "total_cents": (_whole, "a whole number of minor units, not negative"),
    "currency": (
        lambda value: isinstance(value, str) and value.lower() in CURRENCIES,
        "an ISO 4217 currency",
    ),
    "status": (lambda value: isinstance(value, str) and bool(value), "a status"),
}


class CustomerRecords:
    """POST /crm/orders: 201 for a new order, 200 for a known one, 422 naming the first invalid field."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def routes(self) -> list[Route]:
        return [Route("POST", "/crm/orders", self._sync, CRM)]

    def _sync(self, request: Request) -> Answer:
        record = request.json_object()
        for name, (valid, meaning) in _RULES.items():
            if (name in record or name == "order_id") and not valid(record.get(name)):
                raise Refused(problem(422, f"{name} must be {meaning}, not {record.get(name)!r}", name))
        request.work()
        with self._ledger.transaction() as db:
            row = db.execute(
                "INSERT INTO crm_order (order_id, document, updated) VALUES (?, ?, ?)"
                " ON CONFLICT (order_id) DO UPDATE SET document = excluded.document,"
                " updated = excluded.updated, syncs = syncs + 1 RETURNING syncs",
                (str(record["order_id"]), json.dumps(record), int(time.time())),
            ).fetchone()
        return Answer.of(201 if row["syncs"] == 1 else 200, record | {"syncs": row["syncs"]})
