"""How urgent a task is: a name for each queue tier."""

from enum import IntEnum


class Priority(IntEnum):
    """The tiers that a task may run in; a higher number is more urgent. Each tier has its own worker pool.

    `queue` is what a task says: `@shared_task(queue=Priority.HIGH.queue)`.
    """

    CRITICAL = 100
    HIGH = 50
    NORMAL = 10
    LOW = 1

    @property
    def queue(self) -> str:
        return "default" if self is Priority.NORMAL else self.name.lower()
