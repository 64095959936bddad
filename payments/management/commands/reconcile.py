"""`manage.py reconcile`: compare the gateway's ledger with the orders and mend what differs.

Exit status: 0 when everything agrees, 1 when there are findings, 2 when the gateway could not be read.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from circuitbreaker import CircuitBreakerError
from django.core.management.base import BaseCommand, CommandError

from payments.gateway.errors import GatewayError
from payments.reconcile import GRACE, reconcile


class Command(BaseCommand):
    help = "Compare the gateway's ledger with the orders. Exit status: 0 agrees, 1 findings, 2 gateway unavailable."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--days", type=float, default=7.0, help="how far back to compare (default: 7)")
        parser.add_argument(
            "--grace",
            type=float,
            default=GRACE.total_seconds(),
            help="seconds for which a payment counts as still being worked on (default: %(default).0f)",
        )
        parser.add_argument("--dry-run", action="store_true", help="record findings, but do not repair them")

    def handle(self, *args: Any, **options: Any) -> None:
        if not 0 < options["days"] <= 3650 or not 0 <= options["grace"] <= 86_400 * 365:
            raise CommandError("--days must be above 0 and --grace must not be negative", returncode=2)
        try:
            run = reconcile(
                window=timedelta(days=options["days"]),
                grace=timedelta(seconds=options["grace"]),
                heal=not options["dry_run"],
                mend_again=timedelta(0),  # Somebody who runs this by hand wants it mended now.
            )
        except (GatewayError, CircuitBreakerError) as error:
            raise CommandError(f"the gateway could not be read: {error}", returncode=2) from None
        for line in run.lines():
            self.stdout.write(line)
        if run.differences:
            sys.exit(1)
