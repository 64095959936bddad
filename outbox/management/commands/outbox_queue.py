"""`manage.py outbox_queue pause|resume|list`: hold what is published to a queue."""

import getpass
import os
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from outbox import pausing


class Command(BaseCommand):
    help = "Pause a queue, so that the relay publishes nothing to it, and resume it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", choices=("pause", "resume", "list"))
        parser.add_argument("queue", nargs="?", default="")
        parser.add_argument("--reason", default="", help="for the next operator; the alert shows it")

    def handle(self, *args: Any, **options: Any) -> None:
        action, queue = options["action"], options["queue"]
        if action == "list":
            for name, why in pausing.paused():
                self.stdout.write(f"{name} is {why}")
            return
        if action == "resume":
            if not pausing.resume(queue):
                raise CommandError(f"{queue or 'it'} is not paused; name a queue of `outbox_queue list`")
            self.stdout.write(f"{queue} is resumed")
            return
        try:
            if not pausing.pause(queue, actor=_user(), reason=options["reason"]):
                raise CommandError(f"{queue} is paused already")
        except ValueError as why:
            raise CommandError(str(why)) from why
        self.stdout.write(f"{queue} is paused: what is in the broker already still runs")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run under any number, without an entry in passwd.
        return f"uid {os.getuid()}"
