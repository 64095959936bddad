"""Which message of an order caused which: the tree of its messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from outbox.models import OutboxMessage
from outbox.report import arguments

#: Levels of the tree that a page shows; what is deeper stands on the last one.
DEEPEST = 8


@dataclass
class Node:
    """A message with those that it caused. `cause`: the id of a message that caused it and is none of these, else ''."""

    message: OutboxMessage
    cause: str = ""
    parent: Node | None = None
    level: int = 1
    children: list[Node] = field(default_factory=list)

    @property
    def call(self) -> str:
        return call_of(self.message)


def call_of(message: OutboxMessage) -> str:
    """`process_order(order_id=42)`, secrets masked."""
    return f"{message.task.rpartition('.')[2]}({arguments(message.task, message.args, message.kwargs)})"


def tree_of(messages: Sequence[OutboxMessage]) -> list[Node]:
    """The messages that none of these caused, each with those that it caused. `messages`: oldest first."""
    seen: dict[str, Node] = {}
    roots: list[Node] = []
    for message in messages:
        cause = str(message.headers.get("causation_id") or "")
        # A cause is older than what it causes: whatever a producer writes into the header, this has no circle.
        parent = seen.get(cause)
        if parent and parent.level == DEEPEST:
            parent = parent.parent
        node = Node(message, "" if parent else cause, parent, parent.level + 1 if parent else 1)
        (parent.children if parent else roots).append(node)
        seen[str(message.message_id)] = node
    return roots
