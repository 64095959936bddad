"""The journey of one order for its customer, collected from every part of the system that had to do with it.

Nothing in it is a text that a program wrote for us: an exception, an address or a worker's name tells an outsider about
the inside. Staff find those at `/orders/{id}/` (`orders.journey.timeline`).
"""

from orders.api.schemas import (
    DisputeOut,
    InvoiceOut,
    JourneyOut,
    OrderOut,
    RefundOut,
    StepOut,
    StepStatus,
    TransitionOut,
)
from orders.journey.records import records_of
from orders.models import Order
from outbox.status import Status

#: What a message's status means to a customer; every other one is `waiting`.
_STATUS: dict[str, StepStatus] = {Status.DONE: "done", Status.DEAD: "delayed", Status.CANCELLED: "cancelled"}


def journey_of(order: Order) -> JourneyOut:
    """What happened to the order so far, each list oldest first."""
    records = records_of(order)
    refund = records.refund
    return JourneyOut(
        order=OrderOut.of(order),
        transitions=[
            TransitionOut(at=step.at, from_status=step.from_status, to_status=step.to_status, note=step.note)
            for step in records.transitions
            # A run that took the order over from another one changed nothing that its customer knows of.
            if step.from_status != step.to_status
        ],
        steps=[
            StepOut(
                step=message.task.rpartition(".")[2],
                status=_STATUS.get(message.status, "waiting"),
                attempts=message.attempts,
                created_at=message.created_at,
                done_at=message.done_at if message.status == Status.DONE else None,
            )
            for message in records.messages
        ],
        invoices=[
            InvoiceOut(
                number=invoice.number,
                billing_period=invoice.billing_period,
                currency=invoice.currency,
                total=invoice.total_cents,
                issued_at=invoice.issued_at,
            )
            for invoice in records.invoices
        ],
        refund=refund
        and RefundOut(
            status=refund.status,
            amount=refund.amount_cents,
            currency=refund.currency,
            settled_at=refund.settled_at,
        ),
        disputes=[
            DisputeOut(
                status=dispute.state,
                amount=dispute.amount_cents,
                currency=dispute.currency,
                opened_at=dispute.opened_at,
                closed_at=dispute.closed_at,
            )
            for dispute in records.disputes
        ],
    )
