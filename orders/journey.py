"""The whole story of one order, collected from every part of the system that had to do with it."""

from typing import Any

from orders.claims import correlation_id
from orders.models import Order
from orders.schemas import DisputeOut, InvoiceOut, JourneyOut, MessageOut, OrderOut, RefundOut, TransitionOut
from outbox.selectors import messages_of
from payments.selectors import disputes_of, invoices_of, refund_of


def journey_of(order: Order) -> JourneyOut:
    """What happened to the order so far, each list oldest first."""
    refund: Any = refund_of(order.pk)
    return JourneyOut(
        order=OrderOut.of(order),
        transitions=[
            TransitionOut(
                at=step.at,
                from_status=step.from_status,
                to_status=step.to_status,
                note=step.note,
                message_id=step.message_id,
            )
            for step in order.transitions.all()
        ],
        messages=[
            MessageOut(
                message_id=message.message_id,
                task=message.task,
                queue=message.queue,
                status=message.status,
                generation=message.generation,
                attempts=message.attempts,
                duplicates=message.duplicates,
                created_at=message.created_at,
                done_at=message.done_at,
                errors=message.errors,
            )
            for message in messages_of(correlation_id(order.pk))
        ],
        invoices=[
            InvoiceOut(
                number=invoice.number,
                billing_period=invoice.billing_period,
                currency=invoice.currency,
                total=invoice.total_cents,
                issued_at=invoice.issued_at,
            )
            for invoice in invoices_of(order.pk)
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
            for dispute in disputes_of(order.pk)
        ],
    )
