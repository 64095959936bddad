"""The gateway's objects (intents, charges, refunds, events) as stored documents, and lists of them."""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from typing import Any

from lab.sandbox.stripe_errors import invalid
from lab.sandbox.wire import Answer

Document = dict[str, Any]

_COMPARISONS = {"": "=", "gte": ">=", "gt": ">", "lte": "<=", "lt": "<"}
_CURSORS = {"starting_after": "seq < ?", "ending_before": "seq > ?"}


def new_id(prefix: str) -> str:
    """An unguessable id in Stripe's form, such as `pi_` and 24 characters."""
    return f"{prefix}_{secrets.token_hex(12)}"


def now() -> int:
    """Stripe's clock: whole seconds since the epoch."""
    return int(time.time())


def put(db: sqlite3.Connection, document: Document) -> None:
    """Store a new document. Raises `sqlite3.IntegrityError` for a second charge of one intent."""
    intent = document["id"] if document["object"] == "payment_intent" else document.get("payment_intent")
    order_id = document.get("metadata", {}).get("order_id")
    db.execute(
        "INSERT INTO gateway_object (id, kind, payment_intent, order_id, created, document)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (document["id"], document["object"], intent, order_id, document["created"], json.dumps(document)),
    )


def update(db: sqlite3.Connection, document: Document) -> None:
    """Store a new state of a document that is there."""
    db.execute("UPDATE gateway_object SET document = ? WHERE id = ?", (json.dumps(document), document["id"]))


def get(db: sqlite3.Connection, kind: str, object_id: str, *, param: str = "") -> Document:
    """The document. Raises `Refused` (404 resource_missing) in Stripe's words when there is none."""
    row = db.execute(
        "SELECT document FROM gateway_object WHERE id = ? AND kind = ?", (object_id, kind)
    ).fetchone()
    if row is None:
        # Stripe's name for the id in the path.
        param = param or ("intent" if kind == "payment_intent" else "id")
        raise invalid(f"No such {kind}: '{object_id}'", code="resource_missing", param=param, status=404)
    document: Document = json.loads(row["document"])
    return document


def charge_of(db: sqlite3.Connection, payment_intent: str) -> Document | None:
    """The capture of an intent, if there was one."""
    row = db.execute(
        "SELECT document FROM gateway_object WHERE kind = 'charge' AND payment_intent = ?", (payment_intent,)
    ).fetchone()
    return json.loads(row["document"]) if row else None


def page(db: sqlite3.Connection, kind: str, url: str, asked: dict[str, Any]) -> Answer:
    """A list page as Stripe's: newest first, `has_more` says whether to go on.

    Takes `limit` (1 to 100, 10 by default), `starting_after`, `ending_before`, `created` (exact or
    `gte`, `gt`, `lte`, `lt`), `payment_intent`, `charge`, `customer` and `type`; anything else is a 400.
    """
    limit = whole_number(asked.get("limit", "10"), param="limit")
    if not 1 <= limit <= 100:
        raise invalid(f"This value must be between 1 and 100: {limit}", param="limit")
    if _CURSORS.keys() <= asked.keys():
        raise invalid(
            "You may only specify one of these parameters: starting_after, ending_before.",
            code="parameters_exclusive",
        )
    where, values = ["kind = ?"], [kind]
    for name, value in asked.items():
        if name in ("limit", "expand"):
            continue
        for condition, operand in _conditions(db, kind, name, value):
            where.append(condition)
            values.append(operand)
    backwards = "ending_before" in asked
    rows = db.execute(
        f"SELECT document FROM gateway_object WHERE {' AND '.join(where)}"
        f" ORDER BY seq {'ASC' if backwards else 'DESC'} LIMIT ?",
        (*values, limit + 1),
    ).fetchall()
    data = [json.loads(row["document"]) for row in rows[:limit]]
    if backwards:
        data.reverse()
    return Answer.of(200, {"object": "list", "url": url, "has_more": len(rows) > limit, "data": data})


def _conditions(db: sqlite3.Connection, kind: str, name: str, value: Any) -> list[tuple[str, Any]]:
    """What a list parameter asks for, in SQL."""
    unknown = invalid(f"Received unknown parameter: {name}", code="parameter_unknown", param=name)
    if name == "created":
        bounds = value if isinstance(value, dict) else {"": value}
        if not bounds.keys() <= _COMPARISONS.keys():
            raise unknown
        return [
            (f"created {_COMPARISONS[bound]} ?", whole_number(moment, param=name))
            for bound, moment in bounds.items()
        ]
    if not isinstance(value, str):
        raise unknown
    if name in _CURSORS:
        row = db.execute("SELECT seq FROM gateway_object WHERE id = ? AND kind = ?", (value, kind)).fetchone()
        if row is None:
            raise invalid(f"No such {kind}: '{value}'", code="resource_missing", param=name)
        return [(_CURSORS[name], row["seq"])]
    if name == "payment_intent":
        return [("payment_intent = ?", value)]
    if name in ("charge", "customer", "type"):
        return [(f"json_extract(document, '$.{name}') = ?", value)]
    raise unknown


def whole_number(value: Any, *, param: str) -> int:
    """The integer that a form field holds. Raises `Refused` (400 parameter_invalid_integer)."""
    text = str(value)
    if not text.lstrip("-").isdecimal() or len(text) > 15:
        raise invalid(f"Invalid integer: {text[:40]}", code="parameter_invalid_integer", param=param)
    return int(text)
