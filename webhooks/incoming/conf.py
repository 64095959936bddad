"""The settings of the receiver; nothing else of it reads `django.conf.settings`. Read at each use, so that a test may change
them.
"""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string


def secrets() -> tuple[str, ...]:
    """`STRIPE_WEBHOOK_SECRET` (default ""): the signing secret of Stripe's events; a list while one replaces another."""
    value = getattr(settings, "STRIPE_WEBHOOK_SECRET", "")
    return tuple(secret for secret in ([value] if isinstance(value, str) else value) if secret)


def masked() -> Callable[[Any], Any] | None:
    """`INCOMING_MASKED` (default "": none, and the admin shows no payload): dotted path of what makes a copy of a payload without
    secrets, such as "dlq.masking.masked". A payment provider's events may hold some.
    """
    path = getattr(settings, "INCOMING_MASKED", "")
    return import_string(path) if path else None


def on_event() -> Callable[..., Any] | None:
    """`INCOMING_ON_EVENT` (default "": none): dotted path of what each new event is given to, such as "outbox.emit"."""
    path = getattr(settings, "INCOMING_ON_EVENT", "")
    return import_string(path) if path else None
