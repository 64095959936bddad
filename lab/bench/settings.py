"""Settings of the benchmarks: those of production, and the benchmarks' own tasks."""

from config.settings import *  # noqa: F403

CELERY_IMPORTS = ["lab.bench.tasks"]
