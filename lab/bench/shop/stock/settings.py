"""The application's settings, without what the outbox and the dead letters connect."""

import os
import tempfile

from config.settings import *  # noqa: F403
from config.settings import INSTALLED_APPS, MONITORING_READY_CHECKS

_TABLES = {"outbox": "lab.bench.shop.stock.apps.Outbox", "dlq": "lab.bench.shop.stock.apps.Dlq"}
INSTALLED_APPS = [_TABLES.get(app, app) for app in INSTALLED_APPS]
# Celery's own scheduler keeps its schedule in a file.
CELERY_BEAT_SCHEDULE_FILENAME = os.path.join(tempfile.gettempdir(), f"bench-beat-{os.getpid()}")
# There is no relay that has to run before the shop is ready.
MONITORING_READY_CHECKS = {
    name: check for name, check in MONITORING_READY_CHECKS.items() if not check.startswith("outbox.")
}
