"""`manage.py outbox_queue pause|resume|list`: hold what is published to a queue; `outbox_task` does so with a task."""

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from outbox import pausing
from outbox.audit import terminal_user


class Command(BaseCommand):
    help = "Pause a queue, so that the relay publishes nothing to it, and resume it."
    kind = "queue"
    pause: Callable[..., bool] = staticmethod(pausing.pause)
    resume: Callable[..., bool] = staticmethod(pausing.resume)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", choices=("pause", "resume", "list"))
        parser.add_argument("name", metavar=self.kind, nargs="?", default="")
        parser.add_argument(
            "--reason", default="", help="for the next operator, and for the record; the alert shows it"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        action, name = options["action"], options["name"]
        if action == "list":
            for line in self.lines():
                self.stdout.write(line)
            return
        if action == "resume":
            if not self.resume(name, actor=terminal_user(), reason=options["reason"]):
                command = f"outbox_{self.kind} list"
                raise CommandError(f"{name or 'it'} is not paused; name a {self.kind} of `{command}`")
            self.stdout.write(f"{name} is resumed")
            return
        try:
            if not self.pause(name, actor=terminal_user(), reason=options["reason"]):
                raise CommandError(f"{name} is {pausing.standing(self.kind, name) or 'paused already'}")
        except ValueError as why:
            raise CommandError(str(why)) from why
        self.stdout.write(f"{name} is paused: what is in the broker already still runs")

    def lines(self) -> list[str]:
        return [f"{queue} is {why}" for queue, why in pausing.paused()]
