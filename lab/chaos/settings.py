"""The application's own settings, with a schedule that is dense enough for faults to hit it."""

import os

from config.settings import *  # noqa: F403
from lab.chaos import SLOT_S

CELERY_BEAT_SCHEDULE = {
    "prune": {"task": "outbox.retention.prune", "schedule": SLOT_S, "options": {"queue": "low"}},
    "reconcile": {"task": "payments.tasks.reconcile", "schedule": 60.0, "options": {"queue": "low"}},
}

if os.environ.get("CHAOS_OLD_VERSION"):
    CELERY_IMPORTS = ("lab.chaos.old_version",)
