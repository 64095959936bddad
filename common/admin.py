"""What the pages of the admin of several apps have in common."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from dlq.masking import masked


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


class ReadOnlyAdmin(ReadOnly, admin.ModelAdmin):
    """An admin that lists and shows, without the secrets that a text or JSON from outside may hold.

    What is masked is the object that its page shows, which is never saved; actions read their rows anew.
    """

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        return _mask(super().get_object(request, object_id, from_field))

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        changelist = super().get_changelist_instance(request)
        for row in changelist.result_list:
            _mask(row)
        return changelist


def _mask(row: Any) -> Any:
    for name, value in vars(row).items() if row is not None else ():
        if not name.startswith("_") and isinstance(value, (str, dict, list)):
            setattr(row, name, masked(value))
    return row
