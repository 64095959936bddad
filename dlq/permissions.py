"""What each user may do at the desk, by permission, and the name of the one that is lacking."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

#: What is done -> the permission that it takes, and its name in Django's own list.
PERMISSIONS = {
    "view": ("dlq.view_deadletter", "Can view dead letter"),
    "replay": ("dlq.replay_deadletter", "Can replay dead letters"),
    "edit": ("dlq.edit_deadletter", "Can edit and replay dead letters"),
    "discard": ("dlq.discard_deadletter", "Can discard dead letters"),
    "export": ("dlq.export_deadletter", "Can export dead letters"),
    "raw": ("dlq.view_raw_deadletter", "Can see and download messages as received, secrets included"),
}


def may(request: HttpRequest, what: str) -> bool:
    """Whether the user of this request may do it."""
    return request.user.has_perm(PERMISSIONS[what][0])


def lacking(what: str) -> str:
    """A sentence for users who may not."""
    codename, name = PERMISSIONS[what]
    return f"You lack the permission “{name}” ({codename})."


def require(request: HttpRequest, *needed: str) -> None:
    """Raise PermissionDenied, which names the permission, for the first of these that the user may not do."""
    for what in needed:
        if not may(request, what):
            raise PermissionDenied(lacking(what))


def says_why(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """A decorator of a view of an admin class: its 403 shows the text of the PermissionDenied, as Django's own does not."""

    @wraps(view)
    def answered(admin: Any, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            return view(admin, request, *args, **kwargs)
        except PermissionDenied as refused:
            if not str(refused):
                raise
            context = {
                **admin.admin_site.each_context(request),
                "title": "Not permitted",
                "opts": admin.opts,
                "reason": str(refused),
            }
            return TemplateResponse(request, "admin/dlq/not_permitted.html", context, status=403)

    return answered
