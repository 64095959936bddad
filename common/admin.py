"""Pages of the admin for rows that only the code may write."""

from typing import Any

from django.http import HttpRequest


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
