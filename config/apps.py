"""What is replaced of Django's own apps."""

from django.contrib.admin import apps


class AdminConfig(apps.AdminConfig):
    default_site = "config.adminsite.Site"
