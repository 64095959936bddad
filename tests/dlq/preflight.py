"""Whether a replay would be refused, and why, without sending anything."""

from dlq.models import DeadLetter, State
from dlq.replay import NotReplayable, claimable
from dlq.resend import way_of


def obstacle(dead_letter: DeadLetter) -> str:
    """Why this dead letter cannot be replayed now; '' when it can."""
    if (
        dead_letter.state != State.OPEN
        and not DeadLetter.objects.filter(claimable(), pk=dead_letter.pk).exists()
    ):
        return f"it is {dead_letter.state}"
    try:
        way_of(dead_letter)
    except NotReplayable as exc:
        return str(exc)
    return ""
