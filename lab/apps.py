from django.apps import AppConfig


class LabConfig(AppConfig):
    """Adds the lab's management commands (``manage.py stack``) and the controls of the control room; it has no tables."""

    name = "lab"
