"""The pattern folders as tables alone: the admin and the API read them, and no signal of theirs is connected."""

from django.apps import AppConfig


class Outbox(AppConfig):
    name = "outbox"


class Dlq(AppConfig):
    name = "dlq"
