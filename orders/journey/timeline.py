"""Everything that happened to one order, as one timeline for staff: with errors, workers and payloads, secrets masked.

Its price does not depend on the order: six statements beside those of `orders.journey.records`, and at most `MOST` rows of
each kind.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.urls import reverse
from django.utils import timezone

from dlq.masking import masked, masked_text
from dlq.models import DeadLetter, Happened
from dlq.stats import about
from notifications.selectors import emails_about
from orders.journey.causes import call_of
from orders.journey.records import Records
from orders.models import Order, SyncErrorLog
from outbox.operator_page import address
from outbox.status import Status, Verb
from payments.gateway import money
from webhooks.selectors import deliveries_of, events_of

#: Beginnings of error texts that are no errors, and what each means.
_NO_FAILURES = {"deferred for ": "deferred", "cancelled: ": "cancelled"}
#: Messages, dead letters and deliveries of one order that are shown, the first of each.
MOST = 500


@dataclass(frozen=True)
class Entry:
    """One thing that happened, or will. `anchor`: by which others on the page link to it; `links`: (address, text)."""

    at: datetime
    kind: str
    text: str
    is_bad: bool = False
    detail: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    payload: str = ""
    anchor: str = ""
    links: tuple[tuple[str, str], ...] = ()


def timeline_of(records: Records) -> list[Entry]:
    """The entries, oldest first."""
    order = records.order
    entries = [
        *_transitions(records),
        *_payment(order),
        *(entry for message in records.messages for entry in _message(message)),
        *_money_back(records),
        *_invoices(records),
        *_emails(order),
        *_goods(order),
        *_webhooks(order),
        *(entry for each in _dead_letters(records) for entry in _dead_letter(each)),
    ]
    return sorted(entries, key=lambda entry: entry.at)


def anchor_of(message_id: Any) -> str:
    return f"message-{message_id}"


def _transitions(records: Records) -> Iterator[Entry]:
    shown = {message.message_id for message in records.messages}
    for step in records.transitions:
        by = step.message_id
        yield Entry(
            step.at,
            "order",
            f"{step.from_status or 'new'} → {step.to_status}",
            is_bad=step.to_status == Order.Status.FAILED,
            detail=masked_text(step.note),
            links=((f"#{anchor_of(by)}", "by this message"),) if by in shown else (),
        )


def _payment(order: Order) -> Iterator[Entry]:
    # Known with the completion, and not before.
    if order.payment_id and order.completed_at:
        facts = {"payment": order.payment_id}
        yield Entry(
            order.completed_at, "charge", f"{money(order.total_cents, order.currency)} charged", facts=facts
        )


def _message(message: Any) -> Iterator[Entry]:
    name = message.task.rpartition(".")[2]
    own = anchor_of(message.message_id)
    to_it = ((f"#{own}", "its message"),)
    yield Entry(
        message.created_at,
        "message",
        call_of(message),
        is_bad=bool(message.trouble),
        facts={
            "status": message.trouble or message.status,
            "queue": message.queue,
            "runs that ended": message.attempts,
            "generation": message.generation,
            "replays": message.replays,
            "waits its turn in": message.ordering_key,
        },
        anchor=own,
        links=((_change("outbox_outboxmessage", message.pk), "in the admin"),),
    )
    for error in message.errors:
        detail = masked_text(str(error.get("error", "")))
        ended = next((word for begin, word in _NO_FAILURES.items() if detail.startswith(begin)), "failed")
        yield Entry(
            datetime.fromisoformat(error["at"]),
            "attempt",
            f"{name} {ended}",
            is_bad=ended == "failed",
            detail=detail,
            facts={"worker": error.get("worker")},
            links=to_it,
        )
    if message.status == Status.DONE:
        facts = {"worker": message.worker, "attempt": message.attempts}
        yield Entry(message.done_at, "attempt", f"{name} is done", facts=facts, links=to_it)
    elif message.status == Status.PUBLISHED and message.started_at:
        facts = {"worker": message.worker, "attempt": message.attempts + 1}
        yield Entry(message.started_at, "attempt", f"{name} runs", facts=facts, links=to_it)
    elif message.pause:
        yield _paused(name, message, to_it)
    elif message.is_paused:
        yield Entry(timezone.now(), "attempt", f"{name} runs next: its task is resumed", links=to_it)
    elif message.status == Status.SCHEDULED:
        yield Entry(message.deliver_at, "attempt", f"{name} runs next", links=to_it)


def _paused(name: str, message: Any, links: tuple[tuple[str, str], ...]) -> Entry:
    pause = message.pause
    is_due = message.is_paused or message.status != Status.SCHEDULED
    return Entry(
        # What happens next stands at the end.
        timezone.now() if is_due else max(message.deliver_at, timezone.now()),
        "attempt",
        f"{name} waits until {pause.target} is resumed",
        is_bad=True,
        detail=pause.reason,
        facts={
            "since": f"{pause.since:%Y-%m-%d %H:%M:%S}",
            "not before": "" if is_due else f"{message.deliver_at:%Y-%m-%d %H:%M:%S}",
            "behind": "the head of its group" if pause.is_of_head else "",
        },
        links=(*links, (address(Verb.RESUME, pause.target), f"resume {pause.target}")),
    )


def _money_back(records: Records) -> Iterator[Entry]:
    order, refund = records.order, records.refund
    if order.refund_requested_at:
        yield Entry(order.refund_requested_at, "refund", "refund requested")
    if refund:
        yield Entry(
            refund.settled_at or refund.created_at,
            "refund",
            f"{money(refund.amount_cents, refund.currency)}: {refund.status}",
            is_bad=refund.status in (refund.Status.FAILED, refund.Status.DISPUTED),
            facts={"refund": refund.gateway_refund_id, "payment": refund.payment_intent_id},
            links=((_change("payments_refund", refund.pk), "in the admin"),),
        )
    for dispute in records.disputes:
        link = ((_change("payments_dispute", dispute.pk), "in the admin"),)
        facts = {"dispute": dispute.dispute_id, "reason": dispute.reason, "due by": dispute.due_by}
        amount = money(dispute.amount_cents, dispute.currency)
        for at, text, is_bad in (
            (dispute.opened_at, f"dispute over {amount} opened", True),
            (dispute.withdrawn_at, f"the bank took {amount}", True),
            (dispute.reinstated_at, f"the bank gave {amount} back", False),
            (dispute.closed_at, f"dispute {dispute.state}", dispute.state == "lost"),
        ):
            if at:
                yield Entry(at, "dispute", text, is_bad=is_bad, facts=facts, links=link)


def _invoices(records: Records) -> Iterator[Entry]:
    for invoice in records.invoices:
        yield Entry(
            invoice.issued_at,
            "invoice",
            f"{invoice.number} over {money(invoice.total_cents, invoice.currency)}",
            links=((_change("payments_invoice", invoice.pk), "in the admin"),),
        )


def _emails(order: Order) -> Iterator[Entry]:
    for email in emails_about(order.pk):
        yield _sending(email, "email", f"{email.template_name} to {email.to}", "notifications_emaillog")


def _goods(order: Order) -> Iterator[Entry]:
    if order.stock_shipped_at:
        yield Entry(order.stock_shipped_at, "shipment", "goods taken from the stock")
    for refused in SyncErrorLog.objects.filter(entity_type="order", entity_id=order.pk).order_by("pk")[:MOST]:
        yield Entry(
            refused.created_at,
            "CRM",
            "the CRM refused the order's data",
            is_bad=True,
            detail=masked_text(refused.error),
            links=((_change("orders_syncerrorlog", refused.pk), "in the admin"),),
        )


def _webhooks(order: Order) -> Iterator[Entry]:
    events = events_of(order.pk)
    for event in events:
        yield Entry(
            event.created_at,
            "webhook",
            f"{event.event_type} published",
            facts={"event": event.event_id},
            payload=json.dumps(masked(event.payload), ensure_ascii=False, indent=2),
            links=((_change("webhooks_event", event.pk), "in the admin"),),
        )
    for delivery in deliveries_of(events, MOST):
        text = f"{delivery.event_type} to {masked_text(delivery.endpoint)}"
        yield _sending(delivery, "webhook", text, "webhooks_delivery", answer=delivery.http_status)


def _sending(row: Any, kind: str, text: str, admin: str, **facts: Any) -> Entry:
    """Of a row that is sent once."""
    return Entry(
        row.sent_at or row.created_at,
        kind,
        f"{text}: {row.status}",
        is_bad=row.status != row.Status.SENT and bool(row.last_error),
        # Of an earlier attempt, where it was sent at last.
        detail=masked_text(row.last_error),
        facts={"attempts": row.attempts, **facts},
        links=((_change(admin, row.pk), "in the admin"),),
    )


def _dead_letters(records: Records) -> Iterable[DeadLetter]:
    order = records.order
    return about(correlation_id=records.correlation_id, subject=f"order_id={order.pk}", limit=MOST)


def _dead_letter(dead_letter: DeadLetter) -> Iterator[Entry]:
    link = ((_change("dlq_deadletter", dead_letter.pk), "in the dead letters"),)
    for event in dead_letter.events.all():
        yield Entry(
            event.at,
            "dead letter",
            f"{dead_letter.call or dead_letter.cause}: {event.get_what_display()}",
            is_bad=event.what in (Happened.FAILED, Happened.REOPENED) and dead_letter.closed_at is None,
            detail=masked_text(event.note.strip()),
            facts={"by": event.actor, "exception": event.exception, "state now": dead_letter.state},
            links=link,
        )


def _change(model: str, pk: int) -> str:
    return reverse(f"admin:{model}_change", args=[pk])
