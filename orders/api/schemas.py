"""What the HTTP API answers with, and why an order is cancelled. Amounts are integers in minor units (cents)."""

from datetime import datetime
from typing import Annotated, Literal

from django.db.models import prefetch_related_objects
from pydantic import BaseModel, Field

from orders.models import Order
from orders.schema import Strict
from orders.selectors import lines

OrderStatus = Literal["pending", "processing", "completed", "failed", "cancelled"]


class CancelIn(Strict):
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
        prefetch_related_objects([order], lines())  # nothing to do where a whole page was fetched with them
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

    `delayed`: a person has to look at it. Why, and where it runs, is shown to our staff alone.
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
