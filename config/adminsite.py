"""The admin of all apps: a query that its pages do not offer is refused with 400, before it reaches the database.

Django's own lists take any lookup of any column of their table: a pattern that PostgreSQL cannot read, a year that no
date has and a NUL each end in a 500, and a user who may see a list could find out, letter by letter, what it does not
show.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import admin
from django.contrib.admin.exceptions import DisallowedModelAdminLookup
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse


class OfferedList(ChangeList):
    """Accepts only what its page offers: its filters, its date hierarchy, and links that name the value of a column
    which it shows or searches.

    The admin class names in `linked_by` other columns for which there are such links.
    """

    def get_filters(self, request: HttpRequest) -> Any:
        asked = set(self.get_filters_params())
        try:
            found = super().get_filters(request)
        except (OverflowError, ValueError) as error:
            # The date hierarchy: a year that no date has, or the last one, after which it would look for the next.
            raise IncorrectLookupParameters(error) from error
        # Each filter has taken its own parameters out.
        for lookup in asked & (found[2].keys() - self._offered()):
            raise DisallowedModelAdminLookup(f"This list is not filtered by {lookup}")
        return found

    def _offered(self) -> set[str]:
        searched = (name.lstrip("=^@") for name in self.search_fields)
        linked = getattr(self.model_admin, "linked_by", ())
        shown = (*self.list_filter, *self.list_display, *searched, *linked)
        columns = {name for name in shown if isinstance(name, str)}
        dates = {f"{self.date_hierarchy}__{part}" for part in ("year", "month", "day", "gte", "lt")}
        return columns | {f"{name}__exact" for name in columns} | dates


class Site(admin.AdminSite):
    """Django's admin with `OfferedList` for every list, and no NUL in any address.

    An admin class whose objects are made with a secret says so by `shown_once(obj)`, which returns what it is and the
    secret: the answer to the form that adds one is then a page with it.
    """

    def register(self, model_or_iterable: Any, admin_class: Any = None, **options: Any) -> None:
        if hasattr(admin_class, "shown_once"):
            options["response_add"] = _show_once
        super().register(model_or_iterable, admin_class, get_changelist=_offered_list, **options)

    def admin_view(self, view: Callable[..., Any], cacheable: bool = False) -> Any:
        checked = super().admin_view(view, cacheable)

        @wraps(checked)
        def without_nul(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            asked = (text for name, values in request.GET.lists() for text in (name, *values))
            if any("\0" in text for text in (request.path, *asked)):
                # PostgreSQL has no text with it.
                raise BadRequest("The address holds a NUL character")
            return checked(request, *args, **kwargs)

        return without_nul


def _offered_list(self: admin.ModelAdmin, request: HttpRequest, **_: Any) -> type[ChangeList]:
    return OfferedList


def _show_once(
    self: Any, request: HttpRequest, obj: Any, post_url_continue: str | None = None
) -> HttpResponse:
    """The secret in the answer itself, which `admin_view` marks as not to be stored.

    As a message it would travel in a cookie that anybody at the browser can read, until some page shows it.
    """
    label, secret = self.shown_once(obj)
    context = {
        **self.admin_site.each_context(request),
        "title": str(obj),
        "label": label,
        "secret": secret,
        "back": reverse(f"admin:{obj._meta.app_label}_{obj._meta.model_name}_changelist"),
    }
    return TemplateResponse(request, "admin/shown_once.html", context)
