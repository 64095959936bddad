from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand

from lab.serve import main


class Command(BaseCommand):
    """Listed here for `manage.py help`; manage.py runs it without Django, whose settings it provides."""

    help = "Runs the embedded PostgreSQL and Redis until Ctrl-C; writes their addresses to var/stack.env."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        sys.exit(main())
