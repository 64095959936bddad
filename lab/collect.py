"""Collects both ledgers: the app's database (read here, through the ORM) and the sandbox's ledger (over HTTP)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
from django.db.models import Count, F, Q, Sum

from lab.invariants import DeadLetterLine, Ledgers, MessageLine, Movement, OrderLine, Shelf

OPEN_MESSAGES = ("scheduled", "blocked", "pending", "published")
OPEN_ORDERS = ("pending", "processing")
#: How the dedup key of a periodic message begins.
BEAT = "beat:"


@dataclass(frozen=True)
class Progress:
    """How far the system is; cheap enough to read twice a second."""

    orders: Mapping[str, int]  # status -> how many
    messages: Mapping[str, int]  # status -> how many
    retries: int
    duplicates: int
    dead_letters: int
    waiting: bool = False  # a message is scheduled for a moment that is still to come

    @property
    def open_orders(self) -> int:
        return sum(self.orders.get(status, 0) for status in OPEN_ORDERS)

    @property
    def open_messages(self) -> int:
        return sum(self.messages.get(status, 0) for status in OPEN_MESSAGES)


_UNITS = ("stock", "reserved", "shipped")
_RECEIPT = re.compile(r"<receipt-order-(\d+)@")


class Sandbox:
    """The control side of the sandbox."""

    def __init__(self, url: str):
        self._url = url

    def set_faults(self, faults: Mapping[str, Any]) -> None:
        requests.put(f"{self._url}/faults", json=faults, timeout=10).raise_for_status()

    def introduce_merchant(self, customer_id: int, secret: str) -> None:
        """Tell a merchant the secret of its subscription, so that it checks our signatures."""
        requests.put(
            f"{self._url}/merchants/{customer_id}", json={"secret": secret}, timeout=10
        ).raise_for_status()

    def events_due(self) -> int:
        """Gateway events that are not yet delivered to the app."""
        return int(self._get("/healthz")["events_due"])

    def faults_bitten(self) -> int:
        """How many calls failed because the dials said so, since they were last turned."""
        return sum(count for dials in self.bitten().values() for count in dials.values())

    def bitten(self) -> dict[str, dict[str, int]]:
        """The same by service and dial."""
        return self._get("/faults/bitten")

    def ledger(self, name: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self._get(f"/ledger/{name}")["data"]
        return entries

    def _get(self, path: str) -> dict[str, Any]:
        answer = requests.get(f"{self._url}{path}", timeout=60)
        answer.raise_for_status()
        content: dict[str, Any] = answer.json()
        return content


def progress() -> Progress:
    from dlq.models import DeadLetter
    from orders.models import Order
    from outbox.models import ClockTimestamp, OutboxMessage, Skipped

    messages = OutboxMessage.objects
    sums = messages.aggregate(
        # `attempts` counts runs that ended; the first one of each message is no retry.
        runs=Sum("attempts"),
        tried=Count("pk", filter=Q(attempts__gt=0)),
    )
    return Progress(
        orders=dict(Order.objects.values_list("status").annotate(Count("pk"))),
        messages=dict(messages.values_list("status").annotate(Count("pk"))),
        retries=(sums["runs"] or 0) - (sums["tried"] or 0),
        duplicates=sum(Skipped.objects.values_list("count", flat=True)),
        dead_letters=DeadLetter.objects.filter(closed_at=None).count(),
        waiting=messages.filter(status="scheduled", deliver_at__gt=ClockTimestamp()).exists(),
    )


def dead_letter_kinds() -> list[tuple[int, str]]:
    """How many unresolved dead letters there are of each kind, the most frequent first."""
    from dlq.models import DeadLetter

    dead_letters = DeadLetter.objects.filter(closed_at=None)
    kinds = Counter(f"{dead_letter.task}: {dead_letter.summary}" for dead_letter in dead_letters)
    return [(count, kind) for kind, count in kinds.most_common()]


def shelves_at_start() -> dict[str, int]:
    """Units of each SKU before the first order."""
    from orders.models import Product

    return {
        sku: stock + reserved + shipped
        for sku, stock, reserved, shipped in Product.objects.values_list("sku", *_UNITS)
    }


def read_ledgers(sandbox: Sandbox, *, accepted: Sequence[int], at_start: Mapping[str, int]) -> Ledgers:
    """The ledgers of both sides, now."""
    from dlq.models import DeadLetter
    from orders.models import Order, OrderItem, Product
    from outbox.models import OutboxMessage
    from payments.models import Invoice
    from webhooks.models import Delivery, Event, Subscription

    units: dict[int, list[tuple[str, int]]] = {}
    for order_id, sku, quantity in OrderItem.objects.values_list("order_id", F("product__sku"), "quantity"):
        units.setdefault(order_id, []).append((sku, quantity))
    shipments, mail, webhooks = (
        sandbox.ledger("shipments"),
        sandbox.ledger("mail"),
        sandbox.ledger("webhooks"),
    )
    receipts = [
        (int(found.group(1)), entry["copies"])
        for entry in mail
        if (found := _RECEIPT.match(entry["message_id"]))
    ]
    columns = ("id", "status", "currency", "total_cents", "processing_count", "stock_shipped_at")
    orders = [
        OrderLine(
            pk, status, currency, total, count, tuple(units.get(pk, ())), is_shipped=shipped_at is not None
        )
        for pk, status, currency, total, count, shipped_at in Order.objects.values_list(*columns)
    ]
    events = {
        event_id: f"{event_type} of order {order_id}"
        for event_id, event_type, order_id in Event.objects.values_list("event_id", "event_type", "order_id")
    }
    subscriptions: dict[int, list[Subscription]] = {}
    for subscription in Subscription.objects.all():
        subscriptions.setdefault(subscription.customer_id, []).append(subscription)
    customers = dict(Order.objects.values_list("pk", "customer_id"))
    cancelled = {order.id for order in orders if order.status == "cancelled"}
    return Ledgers(
        accepted=list(accepted),
        orders=orders,
        invoices=list(Invoice.objects.values_list("order_id", flat=True)),
        deliveries=[
            (event_id, _merchant(endpoint))
            for event_id, endpoint in Delivery.objects.filter(status="sent").values_list(
                "event_id", "endpoint"
            )
        ],
        shelves=[
            Shelf(sku, at_start.get(sku, 0), stock, reserved, shipped)
            for sku, stock, reserved, shipped in Product.objects.values_list("sku", *_UNITS)
        ],
        open_messages=OutboxMessage.objects.filter(status__in=OPEN_MESSAGES).count(),
        unresolved_dead_letters=DeadLetter.objects.filter(closed_at=None).count(),
        captures=_movements(sandbox.ledger("charges")),
        refunds=_movements(sandbox.ledger("refunds")),
        shipments=[int(entry["order_id"]) for entry in shipments],
        shipped_units=[
            (item["sku"], item["quantity"])
            for entry in shipments
            if int(entry["order_id"]) not in cancelled
            for item in entry["items"]
        ],
        crm_records=[int(entry["order_id"]) for entry in sandbox.ledger("crm")],
        receipts=[order_id for order_id, _ in receipts],
        receipt_copies=sum(copies for _, copies in receipts),
        webhooks=[(entry["webhook_id"], entry["merchant"]) for entry in webhooks],
        unverified_webhooks=sum(not entry["verified"] for entry in webhooks),
        webhooks_due=[
            (f"{event} of order {order.id}", _merchant(subscription.url))
            for order in orders
            for event in _ends(order)
            for subscription in subscriptions.get(customers[order.id], ())
            if subscription.wants(event)
        ],
        webhooks_staged=[
            (events.get(event_id, event_id), _merchant(endpoint))
            for event_id, endpoint in Delivery.objects.values_list("event_id", "endpoint")
        ],
    )


def _ends(order: OrderLine) -> list[str]:
    """The events that tell of the order's ends: of a completed one that was cancelled later there are two."""
    ends = {"completed"} if order.was_completed else set()
    return [f"order.{end}" for end in sorted(ends | ({order.status} - set(OPEN_ORDERS)))]


def _merchant(endpoint: str) -> str:
    return urlsplit(endpoint).path.split("/")[2]


def _movements(entries: Sequence[Mapping[str, Any]]) -> list[Movement]:
    return [Movement(int(entry["order_id"]), entry["currency"], entry["amount"]) for entry in entries]


def message_lines() -> list[MessageLine]:
    """Every message of the outbox."""
    from dlq.message import REPLAY_HEADER
    from outbox.models import OutboxMessage

    columns = (
        *("message_id", "task", "status", "correlation_id", "generation", "attempts", "replays"),
        *("lease_token", "dedup_key", "headers"),
    )
    return [
        MessageLine(
            message_id=str(message_id),
            task=task,
            status=status,
            correlation_id=correlation_id,
            generation=generation,
            attempts=attempts,
            replays=replays,
            born_of_replay=REPLAY_HEADER in headers,
            leased=token is not None,
            tick=key.removeprefix(BEAT) if key.startswith(BEAT) else "",
        )
        for message_id, task, status, correlation_id, generation, attempts, replays, token, key, headers in (
            OutboxMessage.objects.values_list(*columns)
        )
    ]


def dead_letter_lines() -> list[DeadLetterLine]:
    """Every dead letter."""
    from dlq.models import DeadLetter, DeadLetterEvent

    events = Counter(DeadLetterEvent.objects.values_list("dead_letter_id", "what"))
    columns = ("pk", "message_id", "state", "generation", "failures", "exception", "edited_as")
    return [
        DeadLetterLine(
            message_id,
            state,
            generation,
            failures,
            replayed=events[pk, "replayed"],
            reopened=events[pk, "reopened"],
            exception=exception,
            edited_as=edited_as,
        )
        for pk, message_id, state, generation, failures, exception, edited_as in DeadLetter.objects.values_list(
            *columns
        )
    ]
