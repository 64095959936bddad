"""System checks: a receiver that refuses every event, or only stores events, is reported at start."""

import sys
from contextlib import suppress
from typing import Any

from django.core.checks import CheckMessage, Error, Warning, register
from django.urls import get_resolver

from . import conf


@register
def settings_make_sense(**_: Any) -> list[CheckMessage]:
    """INCOMING_ON_EVENT must be importable; without it events are only stored."""
    try:
        if conf.on_event():
            return []
    except ImportError as error:
        return [Error(f"INCOMING_ON_EVENT cannot be imported: {error}", id="webhooks_incoming.E001")]
    return [
        Warning(
            "INCOMING_ON_EVENT is not set: events are stored, and nothing follows from them",
            hint='The dotted path of a callable(name, event_id=...), such as "outbox.emit".',
            id="webhooks_incoming.W001",
        )
    ]


@register
def stripe_has_a_secret(**_: Any) -> list[CheckMessage]:
    """STRIPE_WEBHOOK_SECRET must be set where the project's URLs have the receiver for Stripe."""
    with suppress(Exception):  # URLs that cannot be imported are for Django's own check.
        assert get_resolver().url_patterns
    if conf.secrets() or f"{__package__}.signatures" not in sys.modules:
        return []
    return [
        Warning(
            "STRIPE_WEBHOOK_SECRET is not set: every event is refused",
            hint="The signing secret of the endpoint, whsec_..., or a list of them.",
            id="webhooks_incoming.W002",
        )
    ]
