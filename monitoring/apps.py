from celery import signals
from django.apps import AppConfig


class MonitoringConfig(AppConfig):
    name = "monitoring"
    verbose_name = "Monitoring"

    def ready(self) -> None:
        from monitoring import checks, notices, samples  # noqa: F401  (registers the system checks)

        for begin in (samples.begin, notices.begin):
            signals.beat_init.connect(begin)
            signals.beat_embedded_init.connect(begin)
