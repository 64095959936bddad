"""The page of an order's journey, for staff."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from monitoring.room.access import needs
from orders.journey.causes import tree_of
from orders.journey.records import records_of
from orders.journey.timeline import MOST, timeline_of
from orders.models import Order
from outbox.operator_page import address
from outbox.pausing import pauses_of
from outbox.status import Verb
from outbox.trouble import DEAD, LATE, PAUSED
from payments.gateway import money


@require_safe
@never_cache
@needs("orders.view_journey")
def journey(request: HttpRequest, order_id: int) -> HttpResponse:
    """GET /orders/<id>/: everything that happened to the order, oldest first."""
    order = get_object_or_404(Order.objects.select_related("customer"), pk=order_id)
    records = records_of(order, MOST + 1)
    more = len(records.messages) > MOST
    del records.messages[MOST:]
    pauses = pauses_of(records.messages)
    for message in records.messages:
        message.pause = pauses.get(message.pk)
        if message.pause and message.trouble != DEAD:
            message.trouble = PAUSED
    troubles = [message.trouble for message in records.messages]
    return render(
        request,
        "orders/journey.html",
        {
            "order": order,
            "total": money(order.total_cents, order.currency),
            "correlation_id": records.correlation_id,
            "dead": troubles.count(DEAD),
            "late": troubles.count(LATE),
            "paused": troubles.count(PAUSED),
            "pauses": {
                pause.target: (pause, address(Verb.RESUME, pause.target)) for pause in pauses.values()
            }.values(),
            "most": MOST if more else None,
            "causes": tree_of(records.messages),
            "entries": timeline_of(records),
        },
    )
