"""Dead letters to be edited: of messages that were called with a wrong order."""

from __future__ import annotations

from typing import Any

import outbox
from dlq.models import DeadLetter
from outbox.models import OutboxMessage
from outbox.testing import drain
from tests.support import tasks

KEY = "it-opens-the-safe"


def dead(*args: Any, **options: Any) -> DeadLetter:
    """The dead letter of a message that was called with a wrong order."""
    message_id = outbox.enqueue(tasks.pays.s(*(args or (0, KEY))), **options)
    drain(tasks.pays.name)
    return DeadLetter.objects.get(message_id=str(message_id))


def copies() -> list[OutboxMessage]:
    return list(OutboxMessage.objects.filter(task=tasks.pays.name, replays=1))
