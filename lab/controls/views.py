"""The panel in the control room, and the address that its forms post to."""

from __future__ import annotations

import logging

import requests
from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.views.decorators.http import require_POST

from lab.collect import Sandbox
from lab.controls import dials, stack
from lab.controls.actions import ACTIONS
from monitoring.room.access import needs

log = logging.getLogger(__name__)

PERMISSION = "lab.use_controls"


def panel(request: HttpRequest) -> str:
    """HTML for the end of the control room; '' outside of a stack, and for those without the permission."""
    if stack() is None or not request.user.has_perm(PERMISSION):
        return ""
    try:
        shown, problem = dials.shown(), ""
    except requests.RequestException as error:
        shown, problem = [], f"The sandbox does not answer: {error}"
    context = {
        "actions": {name: name.replace("-", " ").capitalize() for name in ACTIONS},
        "columns": [label for label, _ in dials.SHOWN.values()],
        "services": shown,
        "problem": problem,
    }
    return render_to_string("lab/controls.html", context, request)


@require_POST
@needs(PERMISSION)
def act(request: HttpRequest, action: str) -> HttpResponse:
    """POST /lab/controls/<action>: do it, and go back to the control room, which says what happened."""
    if stack() is None or action not in (*ACTIONS, "dials"):
        raise Http404
    try:
        if action == "dials":
            Sandbox(settings.STRIPE_API_BASE).set_faults(dials.asked(request.POST))
            said = "The dials are turned."
        else:
            said = ACTIONS[action]()
    except (OSError, ValueError) as error:  # requests' errors are OSErrors
        messages.error(request, f"{action.replace('-', ' ').capitalize()}: {error}")
    else:
        log.warning("%s used %s: %s", request.user.get_username(), action, said)
        messages.success(request, said)
    return redirect("control-room")
