"""Who sees the control room: staff with the permission, by the session of the site's login."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

PERMISSION = "monitoring.view_control_room"

View = Callable[..., HttpResponse]


def needs(permission: str = PERMISSION) -> Callable[[View], View]:
    """A decorator: to the login without a session; 403 that names `permission` to others without it."""

    def decorate(view: View) -> View:
        @wraps(view)
        def checked(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
            if not request.user.is_authenticated:
                return redirect_to_login(request.get_full_path())
            missing = "" if request.user.is_staff else "staff status"
            if not missing and not request.user.has_perm(permission):
                missing = f"the permission {permission}"
            if missing:
                context = {"missing": missing, "user": request.user}
                return render(request, "monitoring/forbidden.html", context, status=403)
            return view(request, *args, **kwargs)

        return checked

    return decorate
