"""What the pages of the admin of several apps have in common."""

from typing import Any

from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html


def link_to_journey(order_id: int | None) -> str:
    """A link to the page with everything that happened to this order; "" without one."""
    if order_id is None:
        return ""
    return format_html('<a href="{}">order {}</a>', reverse("order-journey", args=[order_id]), order_id)


class ReadOnly:
    """A mixin for an admin or an inline: it lists and shows, and nothing else.

    A status that was edited by hand has no transition and no message, and a row that was changed by hand proves nothing.
    """

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
