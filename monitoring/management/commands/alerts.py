"""`manage.py alerts`: what fires now."""

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from monitoring.alerts import as_json, current


class Command(BaseCommand):
    help = "Print the alerts that fire, as /alerts.json has them. Exit status: 0 when none fires, 1 when one does."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="the JSON of /alerts.json")

    def handle(self, **options: Any) -> None:
        found = current()
        if options["json"]:
            alerts = [as_json(alert) for alert in found.alerts]
            self.stdout.write(json.dumps({"alerts": alerts, "unjudged": sorted(found.unjudged)}))
        else:
            for alert in found.alerts:
                since = f", since {alert.since:%Y-%m-%d %H:%M:%S} UTC" if alert.since else ""
                self.stdout.write(f"{alert.name}: {alert.text}")
                self.stdout.write(
                    f"    {alert.value:g}, threshold {alert.threshold:g}{since}; see {alert.link}"
                )
            for name in sorted(found.unjudged):
                self.stdout.write(f"{name}: not known, its source cannot be read")
            if not found.alerts:
                self.stdout.write("No alert fires.")
        if found.alerts:
            sys.exit(1)
