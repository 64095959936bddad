"""System checks: a receiver that takes nothing, or takes and forgets, is said at the start."""

from typing import Any

from django.core.checks import CheckMessage, Error, Warning, register

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
