"""What other apps may ask about events that came in."""

from .models import IncomingEvent


def get_incoming_event(event_id: str, *, provider: str = "gateway") -> IncomingEvent:
    """The stored, verified event with its `payload`; raises IncomingEvent.DoesNotExist."""
    return IncomingEvent.objects.get(provider=provider, event_id=event_id)
