"""The probes ahead of everything else: what an orchestrator asks must not depend on the application's middleware."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from monitoring.metrics import RESPONSES
from monitoring.urls import urlpatterns


class Probes:
    """Middleware that answers /healthz, /readyz, /metrics and /alerts.json itself, with or without a slash at the end.

    What it does not answer itself is counted by the class of its status.

    It must stand first in `MIDDLEWARE`.

    A probe comes from inside, in plain HTTP, with the address of the pod as its `Host`. ALLOWED_HOSTS would answer it with
    400 and SECURE_SSL_REDIRECT with a redirect, which counts as success: a process without a database would get requests.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self._views = {f"/{route.pattern}": route.callback for route in urlpatterns}

    def __call__(self, request: HttpRequest) -> HttpResponse:
        view = self._views.get(request.path_info.removesuffix("/"))
        if view:
            return view(request)
        response = self.get_response(request)
        RESPONSES.labels(f"{response.status_code // 100}xx").inc()
        return response
