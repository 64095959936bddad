"""Reading the log of emails: what others may ask."""

from __future__ import annotations

from notifications.models import EmailLog

#: Templates of the emails about one order, each sent once an order.
ABOUT_ORDERS = ("confirmation", "receipt")


def key_about_order(template_name: str, order_id: int) -> str:
    """The business key of this email about the order."""
    return f"{template_name}-order-{order_id}"


def emails_about(order_id: int) -> list[EmailLog]:
    """The emails about the order, oldest first."""
    keys = [key_about_order(name, order_id) for name in ABOUT_ORDERS]
    return list(EmailLog.objects.filter(key__in=keys).order_by("pk"))
