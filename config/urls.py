"""Every URL of the site."""

from typing import NoReturn

from django.apps import apps
from django.contrib import admin
from django.http import Http404, HttpRequest
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt

from config.not_permitted import not_permitted
from orders.api.views import api

handler403 = not_permitted


@csrf_exempt  # else a POST here would be a 403
def nothing_here(request: HttpRequest) -> NoReturn:
    """The API has no page of its own at its root."""
    raise Http404


urlpatterns = [
    path("api/", nothing_here),
    path("api/", api.urls),
    path("webhooks/", include("webhooks.incoming.urls")),
    path("admin/", admin.site.urls),
    path("", include("orders.journey.urls")),
    path("", include("monitoring.urls")),
    path("", include("monitoring.room.urls")),
]
if apps.is_installed("lab"):
    urlpatterns.append(path("lab/", include("lab.controls.urls")))
