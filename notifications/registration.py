"""Signing up: the account and its welcome, both or neither."""

from django.db import transaction

import outbox
from notifications.models import User
from notifications.tasks import send_notification


class UserRegistrationService:
    """Registers users."""

    @staticmethod
    @transaction.atomic
    def register(*, email: str, name: str, password: str | None = None) -> User:
        """Create an account that signs in with its email address, and enqueue the `welcome` email to it.

        The email is a message in the transaction that creates the account: no crash leaves an account without
        its welcome, or greets somebody who was rolled back. Without a password the account cannot sign in
        until it is given one. Raises ValidationError, by field, for an address or name that cannot be taken; of
        two registrations of one address at once, the second may get the database's IntegrityError.
        """
        address = email.strip().lower()  # one account for one mailbox, however it is written
        user = User(username=address, email=address, first_name=name)
        user.set_password(password)
        user.full_clean()
        user.save()
        outbox.enqueue(send_notification.s(user.pk, "welcome"))
        return user
