"""Hand one email to the mail server, once per business key.

What is left: SMTP has no idempotency key. A sender that dies, or loses the connection, after the server took
the email and before `mark_sent`, is followed by one more send. It carries the same Message-ID, which is
derived from the key, so that the server, the mailbox and a ledger can tell a repeat from a second email; many
mailboxes show it once.
"""

import re
import smtplib

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import EmailMessage
from django.core.validators import validate_email

from notifications.conversation import conversation
from notifications.errors import InvalidRecipient, MailNotSent, MailRefused
from notifications.models import EmailLog, RenderedEmail
from outbox.database import patiently

# Becomes the left side of a Message-ID (RFC 5322 dot-atom).
_KEY = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


def message_id_for(key: str) -> str:
    """The Message-ID of the email with this business key, always the same: <receipt-order-42@…>."""
    if not _KEY.fullmatch(key) or len(key) > 150:
        raise ValueError(
            f"an email's key must be 1 to 150 characters of A-Z a-z 0-9 _ - and single dots, not {key!r}"
        )
    domain = settings.DEFAULT_FROM_EMAIL.rpartition("@")[2].rstrip(">") or "localhost"
    return f"<{key}@{domain}>"


def send_once(
    *, key: str, to: str, mail: RenderedEmail, template_name: str, user_id: int | None = None
) -> dict[str, str]:
    """Send the email unless one with this key was sent.

    Returns `{'status': 'sent' | 'already_sent', 'message_id'}`. Raises MailNotSent (try again), MailInFlight
    (another sender has it), MailRefused or InvalidRecipient (never), and RuntimeError when called inside a
    transaction.
    """
    try:
        validate_email(to)
    except ValidationError:
        raise InvalidRecipient(f"{key}: {to!r} is not an email address") from None
    message_id = message_id_for(key)
    log = EmailLog.claim(
        key=key,
        message_id=message_id,
        template_name=template_name,
        to=to,
        subject=mail.subject[:500],
        user_id=user_id,
    )
    if log.status == EmailLog.Status.SENT:
        return {"status": "already_sent", "message_id": message_id}
    try:
        _send(log, mail)
    except Exception as error:
        log.release(error=f"{type(error).__name__}: {error}")
        raise
    return {"status": EmailLog.Status.SENT.value, "message_id": message_id}


def _send(log: EmailLog, mail: RenderedEmail) -> None:
    try:
        with conversation() as connection:
            EmailMessage(
                subject=mail.subject,
                body=mail.body,
                to=[log.to],
                headers={"Message-ID": log.message_id, "Auto-Submitted": "auto-generated"},
                connection=connection,
            ).send()
            # If the database restarts meanwhile, try again: this process knows that the email was sent, and nothing
            # else does.
            patiently(log.mark_sent)
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _ in error.recipients.values()]
        raise (MailRefused if min(codes, default=0) >= 500 else MailNotSent)(f"{log.key}: {error}") from error
    except smtplib.SMTPDataError as error:
        raise (MailRefused if error.smtp_code >= 500 else MailNotSent)(f"{log.key}: {error}") from error
    except OSError as error:
        raise MailNotSent(f"{log.key}: {type(error).__name__}: {error}") from error
