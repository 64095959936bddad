"""Who may read the figures: everybody, or the one who knows the token of `MONITORING_METRICS_TOKEN`, if that is set."""

from django.http import HttpRequest, HttpResponse
from django.utils.crypto import constant_time_compare

from monitoring import conf


def refused(request: HttpRequest) -> HttpResponse | None:
    """The 401 for a request without the Bearer token; None where it may go on."""
    token = conf.metrics_token()
    if not token or constant_time_compare(request.headers.get("Authorization", ""), f"Bearer {token}"):
        return None
    return HttpResponse(
        "A Bearer token is needed.\n",
        status=401,
        content_type="text/plain",
        headers={"WWW-Authenticate": "Bearer"},
    )
