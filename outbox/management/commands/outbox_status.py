"""`manage.py outbox_status`: the outbox on one screen."""

from typing import Any

from django.core.management.base import BaseCommand

from outbox.stats import stats


class Command(BaseCommand):
    help = "Show per queue what is open, what the last minute did, and which workers live."

    def handle(self, **options: Any) -> None:
        figures = stats()
        columns = ("pending", "scheduled", "blocked", "published", "running")
        self.stdout.write(
            f"{'queue':<10}" + "".join(f"{c:>11}" for c in columns) + f"{'done/min':>11}{'failed/min':>12}"
        )
        for queue, counts in figures["queues"].items():
            cells = "".join(f"{counts.get(column, 0):>11}" for column in columns)
            done, failed = (
                figures["done_last_minute"].get(queue, 0),
                figures["failed_last_minute"].get(queue, 0),
            )
            self.stdout.write(f"{queue:<10}{cells}{done:>11}{failed:>12}")
            if counts.get("unusable"):
                self.stdout.write(
                    f"  {queue} is unusable for {counts['unusable_for_s']:.0f} s: {counts['unusable']}"
                )
        workers = figures["workers"]
        self.stdout.write(
            f"workers: {workers['count']} with {workers['concurrency']} processes, {workers['active']} tasks running;"
            f" retries: {figures['retries']}; copies skipped: {sum(figures['skipped'].values())}"
        )
