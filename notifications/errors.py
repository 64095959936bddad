"""What can go wrong with an email: not now (`MailNotSent`, `MailInFlight`) or never (`PermanentMailError`)."""

import outbox


class MailError(Exception):
    """An email was not sent."""


class MailNotSent(MailError):
    """The mail server did not take it, or its answer was lost. Try again: the Message-ID stays the same."""


class PermanentMailError(MailError):
    """No retry makes it right; the text names what is wrong."""


class UnknownUser(PermanentMailError):
    """There is no user with this id."""


class UnknownTemplate(PermanentMailError):
    """There is no template with this name."""


class MissingVariable(PermanentMailError):
    """A template prints a variable that its context lacks: better no email than one that greets 'Dear '."""


class InvalidRecipient(PermanentMailError):
    """The address is missing or is not one email address."""


class MailRefused(PermanentMailError):
    """The mail server refused this mail for good (5xx for the recipient or the content)."""


class MailInFlight(outbox.Defer):
    """Somebody else is sending this very mail. Inside a message it defers the message by itself."""
