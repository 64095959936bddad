"""The wrong way of docs/lessons/outbox.md: the row is committed, and then the message is sent."""

from __future__ import annotations

from celery import Celery
from django.db import transaction

from notifications import User


def register(celery: Celery, email: str) -> User:
    """A crash, or a broker that is down, between the commit and the publish loses the message."""
    with transaction.atomic():
        user = User.objects.create(username=email, email=email)
    celery.send_task("send_welcome", [user.pk], retry=False)
    return user
