"""`manage.py outbox_status`: the outbox on one screen."""

from typing import Any

from django.core.management.base import BaseCommand

from outbox import pausing
from outbox.sql import OPEN_BY_INDEX
from outbox.stats import figures


class Command(BaseCommand):
    help = "Show per queue what is open and what ended in the last minute, and the workers."

    def handle(self, **options: Any) -> None:
        found = figures()
        columns = tuple(OPEN_BY_INDEX)
        self.stdout.write(
            f"{'queue':<10}" + "".join(f"{c:>11}" for c in columns) + f"{'done/min':>11}{'failed/min':>12}"
        )
        for name, queue in found.queues.items():
            cells = "".join(f"{getattr(queue, column):>11}" for column in columns)
            self.stdout.write(
                f"{name:<10}{cells}{found.done_last_minute[name]:>11}{found.failed_last_minute[name]:>12}"
            )
            if queue.unusable:
                self.stdout.write(
                    f"  nothing has been published to {name} for {queue.unusable_for_s:.0f} s: {queue.unusable}"
                )
        for task, pause in found.paused_tasks.items():
            self.stdout.write(f"{task} is {pause.reason} ({pause.set_aside} messages set aside)")
        for target, count in pausing.behind():
            self.stdout.write(f"{count} messages of ordered groups wait behind those of {target}")
        workers = found.workers
        self.stdout.write(
            f"workers: {workers.count} with {workers.concurrency} processes, {workers.active} tasks running;"
            f" retries: {found.retries}; copies skipped: {sum(found.skipped.values())}"
        )
