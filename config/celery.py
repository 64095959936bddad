"""The Celery application: outbox's, with the workers' classes that it finds in dlq."""

import os

from outbox import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("holdfast")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
