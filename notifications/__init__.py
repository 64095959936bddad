"""Notifications: email templates, emails sent once per business reason, and the log of what was sent."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from notifications.models import EmailLog, EmailTemplate, User
    from notifications.registration import UserRegistrationService
    from notifications.services import perform_notification

__all__ = ["EmailLog", "EmailTemplate", "User", "UserRegistrationService", "perform_notification"]

_HOMES = {
    "EmailLog": "notifications.models",
    "EmailTemplate": "notifications.models",
    "User": "notifications.models",
    "UserRegistrationService": "notifications.registration",
    "perform_notification": "notifications.services",
}


def __getattr__(name: str) -> Any:
    """The names above, when they are asked for: Django imports this package before models may be."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
