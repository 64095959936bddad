from celery import signals
from django.apps import AppConfig


class MonitoringConfig(AppConfig):
    name = "monitoring"
    verbose_name = "Monitoring"

    def ready(self) -> None:
        from monitoring import samples

        signals.beat_init.connect(samples.begin)
        signals.beat_embedded_init.connect(samples.begin)
