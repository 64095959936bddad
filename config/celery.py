"""The Celery application. It and its Task class are outbox's, the Request and Consumer classes are dlq's."""

import os

from outbox import Celery
from outbox.task import OutboxTask

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

OutboxTask.Request = "dlq.worker.request:Request"

app = Celery("holdfast")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
