"""Reading deliveries: what the monitoring may ask."""

from __future__ import annotations

from collections import Counter
from typing import Any

from webhooks.models import Delivery

#: Deliveries that are counted, the newest ones: the table keeps all, and has no index on their state.
NEWEST = 1_000


def stats() -> dict[str, Any]:
    """Figures for the metrics: `deliveries`, {status: count} of the newest `NEWEST`."""
    newest = Delivery.objects.order_by("-pk").values_list("status", flat=True)[:NEWEST]
    return {"deliveries": dict.fromkeys(Delivery.Status.values, 0) | Counter(newest)}
