"""What goes in and out of the HTTP API. Amounts are integers in minor units (cents)."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from pydantic import BaseModel, ConfigDict, Field, StrictInt, field_validator

from orders.models import Order
from orders.pricing import MAX_QUANTITY

#: Largest value of a bigint column: above it the database raises instead of finding nothing.
MAX_ID = 2**63 - 1
MAX_LINES = 100

OrderStatus = Literal["pending", "processing", "completed", "failed", "cancelled"]


def field_name(location: Iterable[int | str]) -> str:
    """Where in a document something is wrong: `("items", 0, "sku")` → `items[0].sku`."""
    name = ""
    for part in location:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else str(part)
    return name


class _Strict(BaseModel):
    # A misspelt optional field must not be dropped in silence.
    model_config = ConfigDict(extra="forbid")


class ItemIn(_Strict):
    """One line of an order."""

    sku: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", examples=["WIDGET"])]
    quantity: Annotated[StrictInt, Field(ge=1, le=MAX_QUANTITY, examples=[1])]


class OrderIn(_Strict):
    """An order to place. A SKU may stand in one line only."""

    customer_id: Annotated[StrictInt, Field(ge=1, le=MAX_ID, examples=[1])]
    currency: Annotated[str, Field(pattern=r"^[a-z]{3}$", examples=["usd"])]
    payment_method: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,255}$", examples=["pm_card_visa"])]
    items: Annotated[list[ItemIn], Field(min_length=1, max_length=MAX_LINES)]
    receipt_email: Annotated[
        str | None,
        Field(
            default=None,
            max_length=254,
            examples=["ada@example.com"],
            description="Where mails about this order go; the customer's own address when left out.",
            json_schema_extra={"format": "email"},
        ),
    ]

    @field_validator("receipt_email")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        try:
            if value:
                validate_email(value)
        except ValidationError:
            raise ValueError("must be a mail address") from None
        return value

    def arguments(self) -> dict[str, Any]:
        """What `place_order` is asked for."""
        return {
            "customer_id": self.customer_id,
            "currency": self.currency,
            "payment_method": self.payment_method,
            "lines": [(item.sku, item.quantity) for item in self.items],
            "receipt_email": self.receipt_email or "",
        }


class CancelIn(_Strict):
    """Why an order is cancelled, for its log."""

    reason: Annotated[str, Field(default="", max_length=500, pattern=r"^[^\x00]*$")]


class ItemOut(BaseModel):
    sku: str
    quantity: int
    unit_price: int


class OrderOut(BaseModel):
    """An order. `subtotal`, `tax` and `total` are in minor units of `currency`."""

    id: int
    status: OrderStatus
    customer_id: int
    currency: str
    subtotal: int
    tax: int
    total: int
    items: list[ItemOut]
    receipt_email: str
    payment_method: str
    payment_id: str
    processing_count: int
    failure_reason: str
    created_at: datetime
    completed_at: datetime | None
    cancelled_at: datetime | None

    @classmethod
    def of(cls, order: Order) -> "OrderOut":
        """The order as it stands, with its lines."""
        return cls(
            id=order.pk,
            status=order.status,  # type: ignore[arg-type]  # the column's constraint knows the same five words
            customer_id=order.customer_id,
            currency=order.currency,
            subtotal=order.subtotal_cents,
            tax=order.tax_cents,
            total=order.total_cents,
            items=[
                ItemOut(sku=item.product.sku, quantity=item.quantity, unit_price=item.unit_price_cents)
                for item in order.items.all()
            ],
            receipt_email=order.receipt_email,
            payment_method=order.payment_method,
            payment_id=order.payment_id,
            processing_count=order.processing_count,
            failure_reason=order.failure_reason,
            created_at=order.created_at,
            completed_at=order.completed_at,
            cancelled_at=order.cancelled_at,
        )


class OrderPage(BaseModel):
    """One page, newest first. `next_cursor` is the id of its last order, and null on the last page."""

    items: list[OrderOut]
    next_cursor: int | None


class TransitionOut(BaseModel):
    """One change of the order's status; `note` is the reason that was given for it."""

    at: datetime
    from_status: str
    to_status: str
    note: str


StepStatus = Literal["waiting", "done", "delayed", "cancelled"]


class StepOut(BaseModel):
    """One thing that is done for the order, such as `send_receipt`.

    `delayed`: it needs a person of ours. Why, where it runs and what it said there is for our staff alone.
    """

    step: str
    status: StepStatus
    attempts: int
    created_at: datetime
    done_at: datetime | None


class InvoiceOut(BaseModel):
    number: str
    billing_period: str
    currency: str
    total: int
    issued_at: datetime


class RefundOut(BaseModel):
    status: str
    amount: int
    currency: str
    settled_at: datetime | None


class DisputeOut(BaseModel):
    """What the customer's bank says about the payment: `open`, `won`, `lost`, or `closed` without a chargeback."""

    status: str
    amount: int
    currency: str
    opened_at: datetime
    closed_at: datetime | None


class JourneyOut(BaseModel):
    """What happened to one order and what is still to come, as its customer may see it; each list oldest first."""

    order: OrderOut
    transitions: list[TransitionOut]
    steps: list[StepOut]
    invoices: list[InvoiceOut]
    refund: RefundOut | None
    disputes: list[DisputeOut]
