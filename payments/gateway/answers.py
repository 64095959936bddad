"""Reading the gateway's objects into our own, so that an answer of another shape is noticed here.

What is missing or wrong raises AttributeError, KeyError, TypeError or ValueError, which
`payments.gateway.errors.translated` treats as an answer that says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Intent:
    """A PaymentIntent as far as we look at it. Amounts are in minor units.

    `order_id` is None when the intent names no order; `decline_code` is '' until an attempt was declined.
    """

    id: str
    status: str
    amount_cents: int
    captured_cents: int
    currency: str
    order_id: int | None
    decline_code: str
    created_at: datetime

    @property
    def is_confirmable(self) -> bool:
        """Whether no capture has been tried yet."""
        return self.status in ("requires_confirmation", "requires_payment_method") and not self.decline_code


@dataclass(frozen=True)
class RefundAnswer:
    """One refund in the gateway's list. `is_void` means that it gives nothing back."""

    id: str
    status: str
    amount_cents: int

    @property
    def is_void(self) -> bool:
        return self.status in ("failed", "canceled")


def intent(answer: Any) -> Intent:
    """Reads a PaymentIntent."""
    _expect(answer, "payment_intent")
    metadata = answer.metadata or {}
    order_id = str(metadata["order_id"]) if "order_id" in metadata else ""
    failure = answer.last_payment_error
    return Intent(
        id=str(answer.id),
        status=str(answer.status),
        amount_cents=int(answer.amount),
        captured_cents=int(answer.amount_received),
        currency=str(answer.currency),
        order_id=int(order_id) if order_id.isascii() and order_id.isdigit() else None,
        decline_code=str(getattr(failure, "decline_code", None) or failure.code) if failure else "",
        created_at=datetime.fromtimestamp(int(answer.created), UTC),
    )


def refund(answer: Any) -> RefundAnswer:
    """Reads a Refund."""
    _expect(answer, "refund")
    return RefundAnswer(str(answer.id), str(answer.status), int(answer.amount))


@dataclass(frozen=True)
class DisputeAnswer:
    """A dispute as the gateway reports it, in an answer or in an event."""

    id: str
    charge_id: str
    payment_intent_id: str
    amount_cents: int
    currency: str
    reason: str
    status: str
    due_by: datetime | None
    created_at: datetime | None

    @property
    def blocks_refunds(self) -> bool:
        """Whether the bank has the money, or has kept it."""
        return self.status in ("needs_response", "under_review", "lost")


def dispute(document: Mapping[str, Any]) -> DisputeAnswer:
    """Reads a dispute from its JSON object. An event may be older than a field: what is not needed may be missing."""
    if document.get("object", "dispute") != "dispute":
        raise ValueError(f"expected a dispute, got {document['object']!r}")
    return DisputeAnswer(
        id=str(document["id"]),
        charge_id=_id(document.get("charge")),
        payment_intent_id=_id(document.get("payment_intent")),
        amount_cents=int(document["amount"]),
        currency=str(document["currency"]),
        reason=str(document.get("reason") or ""),
        status=str(document["status"]),
        due_by=_moment((document.get("evidence_details") or {}).get("due_by")),
        created_at=_moment(document.get("created")),
    )


def _id(reference: Any) -> str:
    """The id in a property that may be expanded."""
    return str(reference["id"] if isinstance(reference, Mapping) else reference or "")


def _moment(seconds: Any) -> datetime | None:
    return datetime.fromtimestamp(int(seconds), UTC) if seconds else None


def page(answer: Any, read: Callable[[Any], T]) -> tuple[list[T], bool]:
    """Reads one page of a list, and whether there are more."""
    _expect(answer, "list")
    return [read(each) for each in answer.data], bool(answer.has_more)


def _expect(answer: Any, kind: str) -> None:
    if answer.object != kind:
        raise ValueError(f"expected a {kind}, got {answer.object!r}")
