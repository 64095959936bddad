"""Every URL of the site."""

from django.contrib import admin
from django.urls import include, path

from orders.api import api

urlpatterns = [
    path("api/", api.urls),
    path("webhooks/", include("webhooks.urls")),
    path("admin/", admin.site.urls),
    path("", include("monitoring.urls")),
]
