from django.apps import AppConfig


class IncomingConfig(AppConfig):
    # Wherever the folder is copied to.
    name = __name__.rpartition(".")[0]
    label = "webhooks_incoming"
    verbose_name = "Incoming webhooks"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks  # noqa: F401  (registers the system checks)
