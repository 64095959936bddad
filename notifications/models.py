"""Templates of emails, and the log that makes each email happen once."""

from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, NoReturn, Self

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.template import Context, Engine, Template, TemplateSyntaxError

from common.leases import LeaseHeld, SentOnce
from notifications.errors import MailInFlight, MissingVariable

__all__ = ["EmailLog", "EmailTemplate", "RenderedEmail", "User"]

# Longer than a kept SMTP conversation that does not answer its probe (2 s), and then a whole new one whose every step takes
# the socket timeout of 10 s (connect, greeting, EHLO, MAIL, RCPT, DATA, text), so that a lease that has run out means a
# sender that is gone.
MAIL_LEASE = timedelta(seconds=90)


class _Missing(str):
    """Django formats `string_if_invalid` with the name of a variable that does not resolve: refuse there."""

    __slots__ = ()

    def __mod__(self, variable: Any) -> NoReturn:
        raise MissingVariable(f"the template's variable {{{{ {variable} }}}} is not in its context")


# No loaders, so a template reaches no file; what it prints must exist.
_ENGINE = Engine(string_if_invalid=_Missing("%s"))


@lru_cache(maxsize=256)
def _compiled(text: str) -> Template:
    """The template of this text. Keyed by the text itself, so that an edited template counts at once."""
    return _ENGINE.from_string(text)


@dataclass(frozen=True)
class RenderedEmail:
    """A subject of one line and a body of plain text."""

    subject: str
    body: str


class EmailTemplate(models.Model):
    """An email's text in Django's template language. The permission to edit one is the permission to write in the shop's name."""

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
            _compiled(text).render(Context(context, autoescape=False)) for text in (self.subject, self.body)
        )
        return RenderedEmail(subject=" ".join(subject.split()), body=body)


class EmailLog(SentOnce):
    """One email for one business reason (`key`, for example receipt-order-42), and the lease of its sender.

    Keeps neither body nor context: a password reset link must not be readable here.
    """

    IDENTITY = ("key",)
    LEASE = MAIL_LEASE

    key = models.CharField(max_length=150, unique=True)
    message_id = models.CharField(max_length=250, unique=True)
    template_name = models.CharField(max_length=100)
    user_id = models.BigIntegerField(null=True)
    to = models.CharField(max_length=254)
    subject = models.CharField(max_length=500, blank=True, default="")

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
        """Take the right to send this email, for `MAIL_LEASE`: see `SentOnce.claim_row`. Raises MailInFlight with the seconds
        left while another sender's lease runs.
        """
        new = cls(
            key=key,
            message_id=message_id,
            template_name=template_name,
            to=to,
            subject=subject,
            user_id=user_id,
        )
        try:
            # A corrected address or template counts from now on.
            return cls.claim_row(new, corrects=("template_name", "to", "subject", "user_id"))
        except LeaseHeld as held:
            raise MailInFlight(held.seconds_left, f"{key} is being sent") from None
