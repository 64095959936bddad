"""`manage.py outbox_relay`: the relay process."""

import signal
import threading
from typing import Any

from celery.app import app_or_default
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, InterfaceError
from django.template.defaultfilters import pluralize

from outbox.broker.publisher import BrokerUnavailable
from outbox.checks import serious
from outbox.database import may_pass
from outbox.relay.loop import Relay, describe

#: Far more than one transaction should mark; what is much larger is no number to PostgreSQL.
MAX_BATCH = 1_000_000


class Command(BaseCommand):
    help = "Publish outbox messages to the broker until SIGTERM; with --once, publish what is due and end."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="make passes until nothing is due, then end")
        parser.add_argument("--batch", type=int, help="messages per batch (default: OUTBOX_BATCH)")

    def handle(self, *, once: bool, batch: int | None, **options: Any) -> None:
        if batch is not None and not 1 <= batch <= MAX_BATCH:
            raise CommandError(f"--batch must be a number from 1 to {MAX_BATCH}")
        if lines := serious():
            raise CommandError("\n".join(lines))
        relay = Relay(app_or_default(), batch=batch)
        if once:
            self._once(relay)
            return
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        self.stdout.write("relay: running")
        relay.run(stop)
        self.stdout.write("relay: stopped")

    def _once(self, relay: Relay) -> None:
        published = 0
        try:
            while count := relay.run_once():
                published += count
        except (BrokerUnavailable, DatabaseError, InterfaceError) as error:
            if not isinstance(error, BrokerUnavailable) and not may_pass(error):
                raise
            raise CommandError(f"{describe(error)}; {published} messages were published before") from None
        self.stdout.write(f"published {published} message{pluralize(published)}")
