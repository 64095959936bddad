"""Django settings for procrastinate, on the database of the benchmark."""

import os

import dj_database_url

SECRET_KEY = "benchmark"
DATABASES = {"default": dj_database_url.parse(os.environ["DATABASE_URL"], conn_max_age=600)}
INSTALLED_APPS = ["procrastinate.contrib.django"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
PROCRASTINATE_IMPORT_PATHS = ["lab.bench.peers.procrastinate_tasks"]
