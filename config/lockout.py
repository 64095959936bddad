"""The answer to a login after too many failed ones."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse


def too_many_failures(request: HttpRequest, *_: Any) -> HttpResponse:
    """429 with the time after which another try counts. For AXES_LOCKOUT_CALLABLE."""
    wait_s = int(settings.AXES_COOLOFF_TIME.total_seconds())
    return HttpResponse(
        f"Too many failed logins with this name from this address. Try again in {wait_s // 60} minutes.",
        status=429,
        content_type="text/plain; charset=utf-8",
        headers={"Retry-After": str(wait_s)},
    )
