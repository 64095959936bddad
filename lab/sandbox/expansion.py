"""`expand[]`: ids in an answer replaced by the objects that they name.

Source: https://docs.stripe.com/api/expanding_objects
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from lab.sandbox import objects
from lab.sandbox.objects import Document
from lab.sandbox.stripe_errors import invalid
from lab.sandbox.wire import Answer

DEEPEST = 4  # Stripe's

#: Object -> its properties that can be expanded, and what they name.
_REFERENCES: dict[str, dict[str, str]] = {
    "payment_intent": {
        "latest_charge": "charge",
        "payment_method": "payment_method",
        "customer": "customer",
    },
    "charge": {"payment_intent": "payment_intent", "customer": "customer"},
    "refund": {"charge": "charge", "payment_intent": "payment_intent"},
    "dispute": {"charge": "charge", "payment_intent": "payment_intent"},
}


def expanded(db: sqlite3.Connection, answer: Answer, asked: dict[str, Any]) -> Answer:
    """The answer with what `asked` wants expanded. Raises `Refused` (400), before anything is done, for what cannot be."""
    paths = asked.get("expand")
    if not paths or answer.status != 200:
        return answer
    if not isinstance(paths, dict):
        raise invalid("Invalid array", param="expand")
    content = json.loads(answer.body)
    for path in paths.values():
        parts = str(path).split(".")
        if len(parts) > DEEPEST:
            raise invalid(
                f"You cannot expand more than {DEEPEST} levels of a property: {path}.", param="expand"
            )
        _expand(db, content, parts, path)
    return Answer.of(answer.status, content)


def _expand(db: sqlite3.Connection, content: Document, parts: list[str], path: str) -> None:
    first, *rest = parts
    if content["object"] == "list" and first == "data" and rest:
        for each in content["data"]:
            _expand(db, each, rest, path)
        return
    kind = _REFERENCES.get(content["object"], {}).get(first)
    if kind is None:
        raise invalid(f"This property cannot be expanded ({path}).", param="expand")
    if isinstance(content[first], str):
        content[first] = _named(db, kind, content[first])
    if rest and content[first] is not None:
        _expand(db, content[first], rest, path)


def _named(db: sqlite3.Connection, kind: str, object_id: str) -> Document:
    # The sandbox keeps no cards and customers: their ids are all that is known of them.
    if kind == "payment_method":
        return {"id": object_id, "object": kind, "type": "card", "livemode": False}
    if kind == "customer":
        return {"id": object_id, "object": kind, "livemode": False}
    return objects.get(db, kind, object_id)
