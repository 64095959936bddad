"""The wrong way of docs/lessons/webhook-receiver.md: the event is noted, and then applied, in two steps."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse

from webhooks.incoming.models import IncomingEvent


def receive(request: HttpRequest, apply: Callable[[dict[str, Any]], object]) -> HttpResponse:
    """When `apply` fails, the provider sends the event again, and is told that it is known."""
    event = json.loads(request.body)
    _, created = IncomingEvent.objects.get_or_create(
        provider="acme", event_id=event["id"], defaults={"event_type": event["type"], "payload": event}
    )
    if created:
        apply(event)
    return HttpResponse(status=200)
