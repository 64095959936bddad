"""Reading events and deliveries: what others may ask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from webhooks.models import Delivery, Event


def events_of(order_id: int) -> list[Event]:
    """The events of the order, oldest first."""
    return list(Event.objects.filter(order_id=order_id).order_by("pk"))


def deliveries_of(events: Sequence[Event], limit: int) -> list[Delivery]:
    """Up to `limit` deliveries of these events, oldest first."""
    ids = [event.event_id for event in events]
    return list(Delivery.objects.filter(event_id__in=ids).order_by("pk")[:limit])


#: Deliveries that are counted, the newest ones: the table keeps all, and has no index on their state.
NEWEST = 1_000


def stats() -> dict[str, dict[str, int]]:
    """Figures for the metrics: `deliveries`, {status: count} of the newest `NEWEST`."""
    newest = Delivery.objects.order_by("-pk").values_list("status", flat=True)[:NEWEST]
    return {"deliveries": dict.fromkeys(Delivery.Status.values, 0) | Counter(newest)}
