"""The answer 403 of the admin's pages: it names the permission that the user lacks, which Django's own does not."""

from __future__ import annotations

import copy
from typing import Any

from django.contrib import admin
from django.contrib.auth.models import Permission
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.views.defaults import permission_denied

#: The end of the name of a page's address -> what the page asks for; a form that is sent to `change` asks for that.
NEEDED = {"changelist": "view", "change": "view", "history": "view", "add": "add", "delete": "delete"}


class _Recorder:
    """A user with every permission, who records which ones an admin class asks for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def has_perm(self, permission: str, obj: Any = None) -> bool:
        self.asked.append(permission)
        return True


def not_permitted(request: HttpRequest, exception: Exception) -> HttpResponse:
    """`handler403` of the site: Django's own answer outside of the admin."""
    match = request.resolver_match
    if match is None or match.app_names != ["admin"]:
        return permission_denied(request, exception)
    context = {
        **admin.site.each_context(request),
        "title": "Not permitted",
        "reason": str(exception) or _reason(request, match),
    }
    return TemplateResponse(request, "admin/dlq/not_permitted.html", context, status=403)


def _reason(request: HttpRequest, match: Any) -> str:
    """What the page asks for, as its admin class says it, so that a permission is named only if it would help."""
    unknown = "You lack a permission that this page needs."
    model_admin = getattr(match.func, "model_admin", None)
    ending = (match.url_name or "").rpartition("_")[2]
    if model_admin is None or ending not in NEEDED:
        return unknown
    needed = "change" if ending == "change" and request.method == "POST" else NEEDED[ending]
    asked = copy.copy(request)
    asked.user = recorder = _Recorder()  # type: ignore[assignment]
    if not getattr(model_admin, f"has_{needed}_permission")(asked):
        verb = {"add": "added", "change": "changed", "delete": "deleted"}.get(needed, "seen")
        return f"{model_admin.opts.verbose_name_plural} cannot be {verb} here, by any user.".capitalize()
    missing = next((each for each in recorder.asked if not request.user.has_perm(each)), "")
    return _lacking(missing) if missing else unknown


def _lacking(permission: str) -> str:
    app, _, codename = permission.partition(".")
    found = Permission.objects.filter(content_type__app_label=app, codename=codename).first()
    return f"You lack the permission {f'“{found.name}” ' if found else ''}({permission})."
