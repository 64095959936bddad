"""Which emails there are: what each one says, to whom it goes, and what makes it the same email again."""

import uuid
from collections.abc import Iterable
from typing import Any, Protocol

from django.conf import settings
from django.contrib.auth.tokens import default_token_generator
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

import outbox
from notifications.errors import (
    InvalidRecipient,
    MailInFlight,
    MailNotSent,
    MailRefused,
    MissingVariable,
    PermanentMailError,
    UnknownTemplate,
    UnknownUser,
)
from notifications.mailer import send_once
from notifications.models import EmailTemplate, User
from notifications.selectors import key_about_order
from payments.gateway import money

__all__ = [
    "EmailService",
    "InvalidRecipient",
    "MailInFlight",
    "MailNotSent",
    "MailRefused",
    "MissingVariable",
    "PermanentMailError",
    "UnknownTemplate",
    "UnknownUser",
    "perform_notification",
]


class OrderLike(Protocol):
    """What an email about an order reads of it: `orders.models.Order` without knowing that module."""

    id: Any
    currency: str
    total_cents: int
    receipt_email: str
    customer: Any


class EmailService:
    """Sends emails, each once per business reason.

    Every method returns `{'status': 'sent' | 'already_sent', 'message_id'}` and raises MailNotSent (retry
    it), PermanentMailError (do not) or MailInFlight (an `outbox.Defer`: a message that meets it comes back by
    itself). None may be called inside a transaction. See notifications.mailer for what SMTP leaves open.
    """

    @staticmethod
    def send_confirmation(order: OrderLike) -> dict[str, str]:
        """'We have your order', one per order."""
        return _send_about_order("confirmation", order)

    @staticmethod
    def send_receipt(order: OrderLike) -> dict[str, str]:
        """'You have paid', one per order: its Message-ID is `<receipt-order-{id}@…>` at every attempt."""
        return _send_about_order("receipt", order)

    @staticmethod
    def send_notification(
        user_id: int, template_name: str, context: dict[str, Any] | None = None, *, key: str = ""
    ) -> dict[str, str]:
        """A template of your choice to a user; the context also has `username` and `email`.

        `key` is the business reason ("welcome-user-7"). Without one it is the running message, so that a
        rerun of a message sends nothing twice, and outside of a message every call is a new email. The context
        of a message is stored with it in clear: no secrets. Raises UnknownUser or UnknownTemplate, naming it.
        """
        user = User.objects.filter(pk=user_id).first()
        if user is None:
            raise UnknownUser(f"there is no user {user_id}")
        known = {"username": user.get_username(), "email": user.email}
        return send_once(
            key=key or f"notification-{_occasion()}",
            to=user.email,
            mail=_template(template_name).render(known | (context or {})),
            template_name=template_name,
            user_id=user.pk,
        )

    @staticmethod
    def send_password_reset(email: str) -> list[dict[str, str]]:
        """A reset link to every active account with this address, one email each per request; usually one
        account.

        An unknown address is an empty list and not an error: the caller must not learn who has an account,
        and anybody could fill the dead letters otherwise. The link (`settings.PASSWORD_RESET_URL`) is made
        here, when it is sent, and is kept nowhere: neither in the message nor in the log.
        """
        template = _template("password_reset")
        occasion = _occasion()
        accounts: Iterable[User] = User.objects.filter(email__iexact=email, is_active=True).order_by("pk")
        answers = []
        for user in accounts:
            if not user.has_usable_password():  # Signs in elsewhere; a link here would be a second way in.
                continue
            link = settings.PASSWORD_RESET_URL.format(
                uid=urlsafe_base64_encode(force_bytes(user.pk)),
                token=default_token_generator.make_token(user),
            )
            answers.append(
                send_once(
                    key=f"password-reset-{user.pk}-{occasion}",
                    to=user.email,
                    mail=template.render({"username": user.get_username(), "link": link}),
                    template_name=template.name,
                    user_id=user.pk,
                )
            )
        return answers


def _send_about_order(template_name: str, order: OrderLike) -> dict[str, str]:
    context = {
        "order_id": order.id,
        "customer_name": order.customer.name,
        "total": money(order.total_cents, order.currency),
    }
    return send_once(
        key=key_about_order(template_name, order.id),
        to=order.receipt_email or order.customer.email,
        mail=_template(template_name).render(context),
        template_name=template_name,
    )


def _template(name: str) -> EmailTemplate:
    try:
        template = EmailTemplate.objects.filter(name=name).first()
    except ValueError:
        # NUL or half a surrogate pair: PostgreSQL's text holds neither, so no template has such a name.
        template = None
    if template is None:
        raise UnknownTemplate(f"there is no email template named {name!r}")
    return template


def _occasion() -> str:
    """What tells one request for an email from the next: the message it came with, else this very call."""
    message = outbox.current()
    return str(message.message_id if message else uuid.uuid4())


#: The name under which readers of the patterns look for it.
perform_notification = EmailService.send_notification
