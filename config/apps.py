"""What is replaced of Django's own apps."""

from django.conf import settings
from django.contrib.admin import apps


class AdminConfig(apps.AdminConfig):
    default_site = "config.adminsite.Site"

    def ready(self) -> None:
        super().ready()
        from config import checks  # noqa: F401  (registers the system checks)

        if settings.OUTBOX_TRACING:
            from config import tracing  # its packages are optional

            tracing.start()
