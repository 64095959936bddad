"""Whether a replay would be refused, and why, without sending anything."""

from dlq.models import DeadLetter, State
from dlq.replay import NotReplayable, claimable
from dlq.resend import way_of


def obstacle(letter: DeadLetter) -> str:
    """Why this dead letter cannot be replayed now; '' when it can."""
    if letter.state != State.OPEN and not DeadLetter.objects.filter(claimable(), pk=letter.pk).exists():
        return f"it is {letter.state}"
    try:
        way_of(letter)
    except NotReplayable as exc:
        return str(exc)
    return ""
