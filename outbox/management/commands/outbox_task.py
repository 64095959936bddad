"""`manage.py outbox_task pause|resume|list`: hold the messages of a task, wherever they come from."""

from outbox import pausing, stats
from outbox.management.commands import outbox_queue


class Command(outbox_queue.Command):
    help = "Pause a task, so that the relay publishes no message of it, and resume it."
    kind = "task"
    pause = staticmethod(pausing.pause_task)
    resume = staticmethod(pausing.resume_task)

    def lines(self) -> list[str]:
        return [
            f"{task} is {pause.reason} ({pause.set_aside} messages set aside)"
            for task, pause in stats.figures().paused_tasks.items()
        ]
