"""What the outbox calls of its dead-letter app; `outbox.dead_letters` says when it calls what. The outbox finds this
module by its name.
"""

from dlq.call import arguments
from dlq.conf import journal
from dlq.masking import masked
from dlq.message import REPLAY_HEADER
from dlq.record import on_cancelled, on_dead, on_resolved

REQUEST = "dlq.worker.request:Request"
CONSUMER = "dlq.worker.consumer:Consumer"

__all__ = [
    "CONSUMER",
    "REPLAY_HEADER",
    "REQUEST",
    "arguments",
    "journal",
    "masked",
    "on_cancelled",
    "on_dead",
    "on_resolved",
]
