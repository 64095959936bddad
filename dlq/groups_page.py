"""The landing page of the desk: one row a problem, with what an operator does about it."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse

from dlq import groups
from dlq.masking import masked_text
from dlq.message import text
from dlq.models import DeadLetter, GroupNote, State
from dlq.operations import audit
from dlq.operations.admin import CANARY, ask
from dlq.operations.models import Kind
from dlq.permissions import lacking, may, require

#: Problems on a page, and in all: they are read once, since counting them costs as much as reading them.
PER_PAGE, MAX_GROUPS = 50, 2_000
#: The heading of each column, and what it sorts by.
COLUMNS = (
    ("problem", "Problem"),
    ("task", "Task"),
    ("count", "Open"),
    ("", "Last 24 h"),
    ("first", "First failure"),
    ("last", "Last failure"),
    ("replay", "Last replay"),
)


def show(request: HttpRequest, site: admin.AdminSite, opts: Any) -> HttpResponse:
    """The page, or what one of its buttons asks for."""
    require(request, "view")
    if request.method == "POST":
        return _act(request)
    replaying, sort = request.GET.get("replaying") == "1", request.GET.get("sort", "count")
    found = list(groups.open_groups(replaying=replaying, sort=sort)[:MAX_GROUPS])
    page = Paginator(found, PER_PAGE).get_page(request.GET.get("p"))
    context = {
        **site.each_context(request),
        "title": "Dead letters by problem",
        "groups": groups.shown(page.object_list),
        "page": page,
        "columns": COLUMNS,
        "sort": sort,
        "replaying": replaying,
        "canary": CANARY,
        "may_replay": may(request, "replay"),
        "may_discard": may(request, "discard"),
        "lacking": [lacking(each) for each in ("replay", "discard") if not may(request, each)],
        "opts": opts,
    }
    return TemplateResponse(request, "admin/dlq/groups.html", context)


def _act(request: HttpRequest) -> HttpResponse:
    verb = next((each for each in ("replay", "canary", "discard", "note") if each in request.POST), "")
    fingerprint = text(request.POST.get(verb, ""))
    needed = "discard" if verb == "discard" else "replay"
    require(request, needed)
    if verb in ("replay", "canary", "discard"):
        chosen = DeadLetter.objects.filter(fingerprint=fingerprint, state=State.OPEN)
        return ask(request, Kind(needed), chosen, "all open ones of one problem", canary=verb == "canary")
    if verb == "note":
        said = text(request.POST.get(f"note:{fingerprint}", "")).strip()
        # Masked before it is kept: its form shows it again, and would write a mask back.
        _note(request, fingerprint, masked_text(said)[:500])
    else:
        messages.error(request, "There is no such button.")
    return HttpResponseRedirect(request.get_full_path())


@transaction.atomic
def _note(request: HttpRequest, fingerprint: str, said: str) -> None:
    actor, about = request.user.get_username(), f"problem {fingerprint}"
    if not said:
        if GroupNote.objects.filter(fingerprint=fingerprint).delete()[0]:
            audit.record(Kind.NOTE, "removed the note", actor=actor, chosen_by=about)
        messages.success(request, "The note is removed.")
    elif DeadLetter.objects.filter(fingerprint=fingerprint).exists():
        values = {"text": said, "actor": actor, "at": Now()}
        GroupNote.objects.update_or_create(fingerprint=fingerprint, defaults=values)
        audit.record(Kind.NOTE, "wrote the note", actor=actor, reason=said, chosen_by=about)
        messages.success(request, "The note is kept.")
    else:
        messages.error(request, "There is no such problem: the note is not kept.")
