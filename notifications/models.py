"""Templates of mails, and the log that makes each mail happen once."""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NoReturn, Self

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import Func, Q
from django.template import Context, Engine, TemplateSyntaxError

from notifications.errors import MailInFlight, MissingVariable

__all__ = ["EmailLog", "EmailTemplate", "RenderedEmail", "User"]

# Longer than a whole SMTP conversation whose every step takes the socket timeout of 10 s (connect, greeting,
# EHLO, MAIL, RCPT, DATA, text), so that a lease that has run out means a sender that is gone.
MAIL_LEASE = timedelta(seconds=90)


class ClockTimestamp(Func):
    """PostgreSQL's clock now. `now()` stands still in a transaction; a worker's clock may be off."""

    function = "clock_timestamp"
    arity = 0
    output_field = models.DateTimeField()


class _Missing(str):
    """Django formats `string_if_invalid` with the name of a variable that does not resolve: refuse there."""

    __slots__ = ()

    def __mod__(self, variable: Any) -> NoReturn:
        raise MissingVariable(f"the template's variable {{{{ {variable} }}}} is not in its context")


# No loaders, so a template reaches no file; what it prints must exist.
_ENGINE = Engine(string_if_invalid=_Missing("%s"))


@dataclass(frozen=True)
class RenderedEmail:
    """A subject of one line and a body of plain text."""

    subject: str
    body: str


class EmailTemplate(models.Model):
    """A mail's text in Django's template language. Whoever may edit one writes in the shop's name."""

    name = models.CharField(max_length=100, unique=True)
    subject = models.CharField(max_length=200)
    body = models.TextField()

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Refuse in the admin what would fail at every send."""
        for field in ("subject", "body"):
            try:
                _ENGINE.from_string(getattr(self, field))
            except TemplateSyntaxError as error:
                raise ValidationError({field: str(error)}) from error

    def render(self, context: dict[str, Any]) -> RenderedEmail:
        """Fill in the context; raises MissingVariable for a printed variable that is not there.

        Line breaks in the subject become spaces: a name such as "Ann\\nBcc: all@example.com" adds no header.
        """
        # Plain text: escaping is for HTML. A Context's own setting counts, not the engine's.
        subject, body = (
            _ENGINE.from_string(text).render(Context(context, autoescape=False))
            for text in (self.subject, self.body)
        )
        return RenderedEmail(subject=" ".join(subject.split()), body=body)


class EmailLog(models.Model):
    """One mail for one business reason (`key`, for example receipt-order-42), and the lease of whoever sends
    it.

    Keeps neither body nor context: a password reset link must not be readable here.
    """

    class Status(models.TextChoices):
        OPEN = "open"
        SENT = "sent"

    key = models.CharField(max_length=150, unique=True)
    message_id = models.CharField(max_length=250, unique=True)
    template_name = models.CharField(max_length=100)
    user_id = models.BigIntegerField(null=True)
    to = models.CharField(max_length=254)
    subject = models.CharField(max_length=500, blank=True, default="")
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.OPEN)
    lease_token = models.UUIDField(null=True)
    lease_until = models.DateTimeField(null=True)
    attempts = models.PositiveIntegerField(default=0)
    last_error = models.CharField(max_length=500, blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)
    sent_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(status="sent", sent_at__isnull=False)
                | (~Q(status="sent") & Q(sent_at__isnull=True)),
                name="notifications_sent_mail_has_its_time",
            ),
            models.CheckConstraint(
                condition=Q(lease_token__isnull=True, lease_until__isnull=True)
                | (Q(status="open") & Q(lease_token__isnull=False, lease_until__isnull=False)),
                name="notifications_lease_only_while_open",
            ),
        ]

    def __str__(self) -> str:
        return self.key

    @classmethod
    def claim(
        cls, *, key: str, message_id: str, template_name: str, to: str, subject: str, user_id: int | None
    ) -> Self:
        """Take the right to send this mail, for `MAIL_LEASE`, committed before it returns.

        Returns the row: claimed (status open, with our lease token), or one that was sent before (status
        sent). Raises MailInFlight with the seconds left when another sender's lease runs. Must not be called
        inside a transaction: a claim that nobody else can see claims nothing.
        """
        wanted = {"template_name": template_name, "to": to, "subject": subject, "user_id": user_id}
        with transaction.atomic(durable=True):
            cls.objects.bulk_create([cls(key=key, message_id=message_id, **wanted)], ignore_conflicts=True)
            # The row lock makes claims of one mail take turns; it ends with this short transaction, before
            # SMTP.
            row = cls.objects.select_for_update().get(key=key)
            if row.status == cls.Status.SENT:
                return row
            # A statement of its own: read together with the row, the clock could be from before the wait for
            # its lock.
            clock: datetime = cls.objects.values_list(ClockTimestamp(), flat=True).get(pk=row.pk)
            if row.lease_until is not None and row.lease_until > clock:
                raise MailInFlight((row.lease_until - clock).total_seconds(), f"{key} is being sent")
            for field, value in wanted.items():  # A corrected address or template counts from now on.
                setattr(row, field, value)
            row.lease_token, row.lease_until = uuid.uuid4(), clock + MAIL_LEASE
            row.attempts += 1
            row.save()
            return row

    def mark_sent(self) -> None:
        """Record that the server took it. Not guarded by the lease: who saw the 250 knows, late or not."""
        EmailLog.objects.filter(pk=self.pk).exclude(status=self.Status.SENT).update(
            status=self.Status.SENT,
            sent_at=ClockTimestamp(),
            last_error="",
            lease_token=None,
            lease_until=None,
        )

    def release(self, *, error: str) -> None:
        """Give the claim back after a failure, so that the retry need not wait for the lease to run out.

        Guarded by our token: a sender that was frozen past its lease must not release its successor's.
        """
        EmailLog.objects.filter(pk=self.pk, lease_token=self.lease_token).update(
            lease_token=None, lease_until=None, last_error=error[:500]
        )
