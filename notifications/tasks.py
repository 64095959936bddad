"""Emails as messages. Receipts and confirmations of orders are tasks of orders/, which call EmailService."""

from typing import Any

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded

from common.priority import Priority
from notifications.errors import MailNotSent, PermanentMailError
from notifications.services import EmailService

_MAIL: dict[str, Any] = {
    "autoretry_for": (MailNotSent, SoftTimeLimitExceeded),
    "permanent_errors": (PermanentMailError,),
    # Half an hour in all: enough for greylisting and a restart of the mail server.
    "max_retries": 10,
    "retry_backoff": 1,
    "retry_backoff_max": 600,
    # Below the claim's lease, so that a live sender never outlives its claim.
    "soft_time_limit": 75,
    "time_limit": 85,
}


@shared_task(queue=Priority.NORMAL.queue, last_write_settles=True, **_MAIL)
def send_notification(
    user_id: int, template_name: str, context: dict[str, Any] | None = None, key: str = ""
) -> dict[str, str]:
    """Email a template to a user (see EmailService.send_notification). An unknown user is a dead letter."""
    return EmailService.send_notification(user_id, template_name, context, key=key)


@shared_task(queue=Priority.HIGH.queue, **_MAIL)
def send_password_reset(email: str) -> list[dict[str, str]]:
    """Email a reset link to the accounts with this address; a user waits for it, hence the queue."""
    return EmailService.send_password_reset(email)
