"""`manage.py outbox_run_now`: do not wait for the back-off of scheduled messages."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.template.defaultfilters import pluralize

from outbox.audit import terminal_user
from outbox.pausing import held_back
from outbox.run_now import run_now


class Command(BaseCommand):
    help = "Run the scheduled messages of a task, a queue or an ordered group now, such as after an outage."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--task", default="", help="the name of a task")
        parser.add_argument("--queue", default="", help="the name of a queue")
        parser.add_argument("--group", default="", help="an ordering key")
        parser.add_argument(
            "--delayed",
            action="store_true",
            help="also messages that were enqueued with a delay and have not run yet",
        )
        parser.add_argument("--reason", default="", help="for the record")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            done = run_now(
                task=options["task"],
                queue=options["queue"],
                ordering_key=options["group"],
                delayed=options["delayed"],
                actor=terminal_user(),
                reason=options["reason"],
            )
        except ValueError as why:
            raise CommandError(f"{why}: --task, --queue or --group") from why
        self.stdout.write(f"{done} message{pluralize(done)} run now")
        if options["task"] in held_back()[1]:
            self.stdout.write(f"{options['task']} is paused: its messages wait until it is resumed")
