"""The Celery application. The Task class is outbox's, the Request and Consumer classes are dlq's."""

import os

from celery import Celery

from outbox.task import OutboxTask

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

OutboxTask.Request = "dlq.worker.request:Request"

app = Celery("holdfast", task_cls=OutboxTask)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
