"""What /ledger/... answers: what happened in the outside world, for the proof that it happened once.

Each is `{"data": [...], "count": n, ...}` with its totals; with `?summary=1` the totals alone. `?order_id=`
narrows charges, refunds and shipments to one order, `?merchant=` narrows webhooks. /ledger is all of them at once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from lab.sandbox.ledger import Ledger
from lab.sandbox.wire import Answer, Refused, Request, Route, problem

Rows = list[dict[str, Any]]
_Totals = Callable[[Rows], dict[str, Any]]


class Statements:
    """The ledger's endpoints."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def routes(self) -> list[Route]:
        ledgers: dict[str, tuple[Callable[[dict[str, Any]], Rows], _Totals]] = {
            "charges": (self.charges, _sums),
            "refunds": (self.refunds, _sums),
            "shipments": (self.shipments, _per_order),
            "crm": (self.crm, lambda rows: {"syncs": sum(row["syncs"] for row in rows)}),
            "webhooks": (self.webhooks, self._webhook_totals),
            "mail": (self.mail, lambda rows: {"copies": sum(row["copies"] for row in rows)}),
        }

        def answer(rows: Callable[[dict[str, Any]], Rows], totals: _Totals) -> Callable[[Request], Answer]:
            def show(request: Request) -> Answer:
                asked = request.asked()
                unknown = sorted(set(asked) - {"summary", "order_id", "merchant"})
                if unknown:
                    raise Refused(problem(400, f"unknown parameter {unknown[0]}", unknown[0]))
                found = rows(asked)
                content = {"count": len(found)} | totals(found)
                return Answer.of(200, content if asked.get("summary") else {"data": found} | content)

            return show

        def everything(request: Request) -> Answer:
            return Answer.of(200, {name: rows({}) for name, (rows, _) in ledgers.items()})

        return [
            Route("GET", "/ledger", everything),
            *(Route("GET", f"/ledger/{name}", answer(*book)) for name, book in ledgers.items()),
        ]

    def charges(self, asked: dict[str, Any]) -> Rows:
        """One entry a capture, oldest first."""
        rows = self._ledger.read(
            "SELECT document, order_id FROM gateway_object WHERE kind = 'charge'"
            " AND (?1 IS NULL OR order_id = ?1) ORDER BY seq",
            asked.get("order_id"),
        )
        return [_charge(json.loads(row["document"]), row["order_id"]) for row in rows]

    def refunds(self, asked: dict[str, Any]) -> Rows:
        """One entry a refund; its order is its charge's."""
        rows = self._ledger.read(
            "SELECT refund.document, charge.order_id FROM gateway_object AS refund"
            " JOIN gateway_object AS charge"
            " ON charge.payment_intent = refund.payment_intent AND charge.kind = 'charge'"
            " WHERE refund.kind = 'refund' AND (?1 IS NULL OR charge.order_id = ?1) ORDER BY refund.seq",
            asked.get("order_id"),
        )
        names = ("id", "payment_intent", "charge", "amount", "currency", "metadata", "created")
        documents = [(json.loads(row["document"]), row["order_id"]) for row in rows]
        return [
            {name: refund[name] for name in names} | {"order_id": order_id} for refund, order_id in documents
        ]

    def shipments(self, asked: dict[str, Any]) -> Rows:
        """One entry a shipment."""
        rows = self._ledger.read(
            "SELECT * FROM shipment WHERE ?1 IS NULL OR order_id = ?1 ORDER BY seq", asked.get("order_id")
        )
        return [
            {
                "id": row["id"],
                "order_id": row["order_id"],
                "items": json.loads(row["request"])["items"],
                "idempotency_key": row["idempotency_key"],
                "created": row["created"],
            }
            for row in rows
        ]

    def crm(self, asked: dict[str, Any]) -> Rows:
        """One entry an order that the CRM knows, with how often it was synced."""
        rows = self._ledger.read(
            "SELECT * FROM crm_order WHERE ?1 IS NULL OR order_id = ?1", asked.get("order_id")
        )
        return [
            {
                "order_id": row["order_id"],
                "record": json.loads(row["document"]),
                "syncs": row["syncs"],
                "updated": row["updated"],
            }
            for row in rows
        ]

    def webhooks(self, asked: dict[str, Any]) -> Rows:
        """One entry a distinct (merchant, webhook id) that was accepted, in the order of first arrival."""
        rows = self._ledger.read(
            "SELECT merchant, webhook_id, count(*) AS deliveries, min(verified) AS verified,"
            " min(seq) AS arrival, body, min(received) AS first_received, max(received) AS last_received"
            " FROM webhook_delivery WHERE accepted AND (?1 IS NULL OR merchant = ?1)"
            " GROUP BY merchant, webhook_id ORDER BY arrival",
            asked.get("merchant"),
        )
        return [
            {
                "merchant": row["merchant"],
                "webhook_id": row["webhook_id"],
                "deliveries": row["deliveries"],
                "duplicate": row["deliveries"] > 1,
                "verified": bool(row["verified"]),
                "arrival": row["arrival"],
                "payload": _parsed(row["body"]),
                "first_received": row["first_received"],
                "last_received": row["last_received"],
            }
            for row in rows
        ]

    def _webhook_totals(self, rows: Rows) -> dict[str, Any]:
        refused = self._ledger.read("SELECT count(*) AS times FROM webhook_delivery WHERE NOT accepted")
        return {"deliveries": sum(row["deliveries"] for row in rows), "refused": refused[0]["times"]}

    def mail(self, asked: dict[str, Any]) -> Rows:
        """One entry a distinct Message-ID, with its copies; each message without one is an entry."""
        rows = self._ledger.read(
            "SELECT message_id, recipients, subject, raw, count(*) AS copies,"
            " min(seq) AS arrival, min(received) AS received FROM mail"
            " GROUP BY coalesce(nullif(message_id, ''), seq) ORDER BY arrival"
        )
        return [
            {
                "message_id": row["message_id"],
                "to": json.loads(row["recipients"]),
                "subject": row["subject"],
                "copies": row["copies"],
                "received": row["received"],
                "raw": row["raw"].decode("utf-8", "replace"),
            }
            for row in rows
        ]


def _charge(charge: dict[str, Any], order_id: str | None) -> dict[str, Any]:
    names = (
        "id",
        "payment_intent",
        "amount",
        "amount_refunded",
        "currency",
        "metadata",
        "payment_method",
        "created",
    )
    return {name: charge[name] for name in names} | {"order_id": order_id}


def _per_order(rows: Rows) -> dict[str, Any]:
    """How many orders the rows are about, and which have more than one: the list that must be empty."""
    per_order = Counter(row["order_id"] for row in rows if row["order_id"] is not None)
    return {
        "orders": len(per_order),
        "repeated": sorted(order for order, times in per_order.items() if times > 1),
    }


def _sums(rows: Rows) -> dict[str, Any]:
    amounts: Counter[str] = Counter()
    for row in rows:
        amounts[row["currency"]] += row["amount"]
    return {"amounts": dict(amounts)} | _per_order(rows)


def _parsed(body: str) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body
