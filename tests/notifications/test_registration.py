"""A registered user is welcomed once, and no one else is."""

import subprocess
import sys

import pytest
from django.core.exceptions import ValidationError
from django.db import transaction

import notifications
from notifications import (
    EmailLog,
    EmailTemplate,
    User,
    UserRegistrationService,
    models,
    perform_notification,
    services,
)
from outbox.models import OutboxMessage
from outbox.testing import drain, staged

pytestmark = pytest.mark.django_db


@pytest.mark.described("`UserRegistrationService.register` enqueues one notification")
def test_registering_enqueues_the_welcome_to_the_right_queue_with_the_right_arguments() -> None:
    user = UserRegistrationService().register(email="alice@example.com", name="Alice")
    (message,) = staged()
    assert (message.task, message.queue) == ("notifications.tasks.send_notification", "default")
    assert (message.args, message.kwargs) == ([user.pk, "welcome"], {})


def test_the_new_user_is_mailed_a_welcome(mailoutbox: list) -> None:
    UserRegistrationService.register(email=" Alice@Example.com", name="Alice")
    drain()
    (mail,) = mailoutbox
    assert (mail.to, mail.subject) == (["alice@example.com"], "Welcome")
    assert EmailLog.objects.get().status == "sent"


def test_a_registration_that_is_rolled_back_leaves_neither_account_nor_message() -> None:
    @transaction.atomic
    def register_and_crash() -> None:
        UserRegistrationService.register(email="alice@example.com", name="Alice")
        raise RuntimeError("after registering, before the commit")

    with pytest.raises(RuntimeError):
        register_and_crash()
    assert not User.objects.exists()
    assert not OutboxMessage.objects.exists()


def test_an_account_without_its_message_is_rolled_back(mocker) -> None:
    mocker.patch("outbox.enqueue", side_effect=RuntimeError)
    with pytest.raises(RuntimeError):
        UserRegistrationService.register(email="alice@example.com", name="Alice")
    assert not User.objects.exists()


@pytest.mark.parametrize("email", ["", "alice", "ALICE@example.com", "a" * 200 + "@example.com"])
def test_an_address_that_cannot_be_taken_is_refused(email: str) -> None:
    """No welcome email is sent."""
    UserRegistrationService.register(email="alice@example.com", name="Alice")
    with pytest.raises(ValidationError):
        UserRegistrationService.register(email=email, name="Another")
    assert User.objects.count() == len(staged()) == 1


def test_a_password_lets_the_new_user_in() -> None:
    user = UserRegistrationService.register(
        email="alice@example.com", name="Alice", password="a long password"
    )
    assert user.check_password("a long password")
    assert not UserRegistrationService.register(email="b@example.com", name="Bob").has_usable_password()


def test_the_package_imports_no_model_before_it_is_used() -> None:
    """It has all its names nevertheless."""
    assert (User, EmailTemplate, EmailLog) == (models.User, models.EmailTemplate, models.EmailLog)
    assert perform_notification is services.perform_notification
    assert all(getattr(notifications, name) for name in notifications.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        notifications.nothing  # noqa: B018
    alone = "import notifications, sys; sys.exit('notifications.models' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", alone], check=False).returncode == 0
