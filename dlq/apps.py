from django.apps import AppConfig


class DlqConfig(AppConfig):
    name = "dlq"
    verbose_name = "Dead letters"

    def ready(self) -> None:
        from celery import current_app

        from dlq import checks, periodic  # noqa: F401  (registers the system checks)
        from dlq.worker import success

        success.connect()
        periodic.connect(current_app)
