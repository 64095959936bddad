"""The operator's URLs, to be included at the root of the site."""

from collections.abc import Callable

from django.http import HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from monitoring.alerts import alerts_json
from monitoring.health import healthz, readyz
from monitoring.metrics import metrics


def only_read(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """GET and HEAD; everything else is a 405, which the check for forged requests would make a 403."""
    return csrf_exempt(require_safe(view))


urlpatterns = [
    path("healthz", only_read(healthz), name="healthz"),
    path("readyz", only_read(readyz), name="readyz"),
    path("metrics", only_read(metrics), name="metrics"),
    path("alerts.json", only_read(alerts_json), name="alerts"),
]
