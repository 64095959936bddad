from django.apps import AppConfig


class DlqConfig(AppConfig):
    name = "dlq"
    verbose_name = "Dead letters"

    def ready(self) -> None:
        from dlq import checks  # noqa: F401  (registers the system checks)
        from dlq.worker import success

        success.connect()
