from django.apps import AppConfig


class LabConfig(AppConfig):
    """Adds the lab's management commands (``manage.py stack``); it has no tables."""

    name = "lab"
