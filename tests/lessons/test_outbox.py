"""Lesson "outbox": a user registers while the broker is down."""

from __future__ import annotations

import pytest
from celery import Celery
from django.db import transaction
from kombu.exceptions import OperationalError

from lab.lessons import outbox
from notifications import User, UserRegistrationService
from outbox.testing import staged

pytestmark = pytest.mark.django_db
EMAIL = "ada@example.com"


@pytest.fixture
def broken() -> Celery:
    """An application whose broker refuses connections."""
    return Celery("broken", broker="redis://127.0.0.1:1/0", set_as_current=False)


def test_wrong_a_message_sent_after_the_commit_is_lost_with_the_broker(broken: Celery) -> None:
    with pytest.raises(OperationalError):
        outbox.register(broken, EMAIL)
    assert User.objects.filter(email=EMAIL).exists()
    assert not staged()


def test_right_a_message_in_the_transaction_is_committed_with_it() -> None:
    user = UserRegistrationService.register(email=EMAIL, name="Ada")
    assert [(message.task, message.args) for message in staged()] == [
        ("notifications.tasks.send_notification", [user.pk, "welcome"])
    ]


def test_right_a_message_of_a_transaction_that_rolls_back_is_none() -> None:
    with transaction.atomic():
        UserRegistrationService.register(email=EMAIL, name="Ada")
        transaction.set_rollback(True)
    assert not staged()
    assert not User.objects.filter(email=EMAIL).exists()
