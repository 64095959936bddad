"""The wiring: settings, the Celery app, queues and URLs. The only place where the apps meet."""

from config.celery import app as celery

__all__ = ["celery"]
