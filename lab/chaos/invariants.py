"""The longer ledgers of a chaos run: transition logs, messages, dead letters, and the order of webhooks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from django.conf import settings

from lab.chaos.damage import Outcome
from lab.collect import Sandbox, dead_letter_lines, message_lines, read_ledgers
from lab.invariants import ClientRequest, Ledgers, Pair, Sample
from lab.invariants.records import FINAL

DELIVER = "webhooks.tasks.deliver"
PUBLISH = "webhooks.tasks.publish_event"


def read_chaos_ledgers(
    sandbox: Sandbox,
    *,
    at_start: Mapping[str, int],
    requests: Sequence[ClientRequest],
    samples: Sequence[Sample],
    injected: frozenset[str],
) -> Ledgers:
    """Everything, once the system is quiet."""
    from orders.models import Order, OrderTransition

    accepted = [request.order_id for request in requests if request.order_id is not None]
    ledgers = read_ledgers(sandbox, accepted=accepted, at_start=at_start)
    moves: dict[int, list[Pair]] = {}
    for order_id, before, after in OrderTransition.objects.order_by("id").values_list(
        "order_id", "from_status", "to_status"
    ):
        moves.setdefault(order_id, []).append((before, after))
    marks = {pk: (tag, fence) for pk, tag, fence in Order.objects.values_list("pk", "receipt_email", "fence")}
    orders = [
        replace(order, tag=marks[order.id][0], fence=marks[order.id][1], moves=tuple(moves.get(order.id, ())))
        for order in ledgers.orders
    ]
    return replace(
        ledgers,
        orders=orders,
        requests=list(requests),
        samples=list(samples),
        messages=message_lines(),
        dead_letters=dead_letter_lines(),
        webhooks_enqueued=_webhooks_enqueued(),
        events=_events(),
        injected=injected,
        reprocessed=_reprocessed(),
        tick_s={
            name: float(getattr(entry["schedule"], "total_seconds", lambda entry=entry: entry["schedule"])())
            for name, entry in settings.CELERY_BEAT_SCHEDULE.items()
        },
    )


def _reprocessed() -> frozenset[int]:
    """Orders whose processing reconciliation has begun again."""
    from payments.models import Finding

    mended = Finding.objects.filter(action=Finding.Action.PROCESSING_REARMED, mended_at__isnull=False)
    return frozenset(order_id for (order_id,) in mended.values_list("order_id") if order_id is not None)


def _webhooks_enqueued() -> list[Pair]:
    """Deliveries in the order in which they were enqueued for each merchant, without what an operator replayed."""
    from outbox.models import OutboxMessage
    from webhooks.models import Delivery

    deliveries = {
        pk: (event, endpoint)
        for pk, event, endpoint in Delivery.objects.values_list("pk", "event_id", "endpoint")
    }
    messages = (
        OutboxMessage.objects.filter(task=DELIVER, replays=0).order_by("id").values_list("args", flat=True)
    )
    found = [deliveries[args[0]] for args in messages if args and args[0] in deliveries]
    return [(event, urlsplit(endpoint).path.split("/")[2]) for event, endpoint in found]


def _events() -> dict[str, tuple[int, int]]:
    """Event id -> order and transition, for every event whose publishing no operator replayed."""
    from orders.models import OrderTransition
    from outbox.models import OutboxMessage
    from webhooks.models import Event

    ends = OrderTransition.objects.filter(to_status__in=FINAL).values_list("order_id", "to_status", "pk")
    lines = {(order_id, f"order.{status}"): pk for order_id, status, pk in ends}
    replayed = {
        (kwargs["order_id"], kwargs["event"])
        for kwargs in OutboxMessage.objects.filter(task=PUBLISH, replays__gt=0).values_list(
            "kwargs", flat=True
        )
    }
    return {
        event_id: (order_id, lines[order_id, event_type])
        for event_id, order_id, event_type in Event.objects.values_list("event_id", "order_id", "event_type")
        if (order_id, event_type) in lines.keys() - replayed
    }


def outcomes(ledgers: Ledgers) -> list[Outcome]:
    """The orders as the count of damage wants them. A copy of an email with an equal Message-ID is the same receipt."""
    receipts = Counter(ledgers.receipts)
    return [
        Outcome(
            id=order.id,
            tag=order.tag,
            ended=order.status in FINAL,
            completed=order.status == "completed",
            total_cents=order.total_cents,
            due_cents=order.total_cents,  # a constraint of the table keeps it the sum of its parts
            receipts=receipts[order.id],
        )
        for order in ledgers.orders
    ]
