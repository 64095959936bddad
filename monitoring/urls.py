"""The operator's URLs, to be included at the root of the site."""

from django.urls import path

from monitoring.health import healthz, readyz
from monitoring.metrics import metrics

urlpatterns = [
    path("healthz", healthz, name="healthz"),
    path("readyz", readyz, name="readyz"),
    path("metrics", metrics, name="metrics"),
]
