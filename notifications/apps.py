from django.apps import AppConfig
from django.db.models.signals import post_migrate

from notifications.defaults import create_templates


class NotificationsConfig(AppConfig):
    name = "notifications"
    verbose_name = "Notifications"

    def ready(self) -> None:
        post_migrate.connect(create_templates, sender=self, dispatch_uid="notifications.defaults")
