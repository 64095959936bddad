"""Django settings for django-celery-outbox, on the database and broker of the benchmark."""

import os

import dj_database_url

SECRET_KEY = "benchmark"
DATABASES = {"default": dj_database_url.parse(os.environ["DATABASE_URL"], conn_max_age=600)}
INSTALLED_APPS = ["django_celery_outbox"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
CELERY_OUTBOX_APP = "lab.bench.peers.celery_outbox.app"
LOGGING = {"version": 1, "disable_existing_loggers": False, "root": {"level": "WARNING"}}
