"""The page of the control room, and the two addresses that it polls."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.module_loading import import_string
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from monitoring import conf
from monitoring.room.access import needs
from monitoring.room.charts import SPANS, charts
from monitoring.room.state import state


@require_safe
@never_cache
@needs()
def control_room(request: HttpRequest) -> HttpResponse:
    """GET /: the page, without figures: its script polls them."""
    panels = [html for path in conf.panels() if (html := import_string(path)(request))]
    return render(request, "monitoring/control_room.html", {"spans": list(SPANS), "panels": panels})


@require_safe
@never_cache
@needs()
def state_json(request: HttpRequest) -> HttpResponse:
    """GET /control-room/state.json: `monitoring.room.state.state`."""
    return JsonResponse(state())


@require_safe
@never_cache
@needs()
def charts_json(request: HttpRequest) -> HttpResponse:
    """GET /control-room/charts.json?span=1 h: `monitoring.room.charts.charts`; 400 for a span that there is not."""
    span = request.GET.get("span", next(iter(SPANS)))
    if span not in SPANS:
        return JsonResponse({"error": f"span must be one of {', '.join(SPANS)}"}, status=400)
    return JsonResponse(charts(span))
