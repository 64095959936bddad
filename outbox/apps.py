from django.apps import AppConfig


class OutboxConfig(AppConfig):
    name = "outbox"
    verbose_name = "Outbox"

    def ready(self) -> None:
        from celery import current_app

        from outbox import checks, heartbeat, periodic  # noqa: F401  (registers the system checks and worker signals)

        periodic.connect(current_app)
