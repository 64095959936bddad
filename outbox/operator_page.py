"""The page on which an operator pauses, resumes or runs now the messages of a queue or a task: asked first, with numbers."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import connection
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.http import urlencode

from outbox import conf, pausing, run_now
from outbox.enqueue import task_names
from outbox.sql import OPEN_BY_INDEX
from outbox.status import Verb

PERMISSION = "outbox.add_operatoraction"
LACKING = f"You lack the permission “Can add operator's action” ({PERMISSION})."
#: What a pause or a resume is of.
PAUSES = {"queue": (pausing.pause, pausing.resume), "task": (pausing.pause_task, pausing.resume_task)}


def targets() -> list[str]:
    """The queues and tasks of this deployment."""
    return [*(f"queue {name}" for name in conf.queues()), *(f"task {name}" for name in task_names())]


class ActionForm(forms.Form):
    verb = forms.ChoiceField(choices=Verb.choices)
    target = forms.ChoiceField(label="Of")
    reason = forms.CharField(max_length=1000, help_text="for the record, and for the next operator")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["target"].choices = [(each, each) for each in targets()]  # type: ignore[attr-defined]


def show(request: HttpRequest, site: admin.AdminSite, opts: Any) -> HttpResponse:
    """The form, then what would come of it, then the record."""
    may = request.user.has_perm(PERMISSION)
    form = ActionForm(request.POST or None, initial=request.GET.dict())
    asked = form.cleaned_data if may and form.is_valid() else None
    if asked and "confirmed" in request.POST:
        _act(request, **asked)
        return HttpResponseRedirect(reverse("admin:outbox_operatoraction_changelist"))
    refusal = refused(asked["verb"], asked["target"]) if asked else ""
    if asked and refusal:
        if asked["verb"] == Verb.PAUSE:
            form = ActionForm(initial={"verb": Verb.RESUME, "target": asked["target"]})
        asked = None
    context = {
        **site.each_context(request),
        "title": "Pause, resume, or run now",
        "opts": opts,
        "form": form,
        "asked": asked,
        "refusal": refusal,
        "consequence": consequence(asked["verb"], asked["target"]) if asked else "",
        "lacking": "" if may else LACKING,
    }
    return TemplateResponse(request, "admin/outbox/act.html", context, status=200 if may else 403)


def address(verb: Verb, target: str) -> str:
    """Of this page, about this queue or task."""
    return f"{reverse('admin:outbox_operatoraction_add')}?{urlencode({'verb': verb.value, 'target': target})}"


def _act(request: HttpRequest, *, verb: str, target: str, reason: str) -> None:
    kind, _, name = target.partition(" ")
    by = {"actor": request.user.get_username(), "reason": reason}
    if verb == Verb.RUN_NOW:
        done = run_now.run_now(**{kind: name}, **by)  # type: ignore[arg-type]
        messages.success(request, f"{done} messages of {target} run now")
        return
    pause, resume = PAUSES[kind]
    act, said = {Verb.PAUSE: (pause, "is paused"), Verb.RESUME: (resume, "is resumed")}[Verb(verb)]
    if act(name, **by):
        messages.success(request, f"{target} {said}")
    else:
        messages.warning(request, refused(verb, target) or f"{target} was changed just now: look again")


def refused(verb: str, target: str) -> str:
    """Why there is nothing to pause or to resume; '' where there is."""
    if verb == Verb.RUN_NOW:
        return ""
    already = pausing.standing(*target.split(" ", 1))
    if verb == Verb.PAUSE:
        return already and f"{target} is {already}"
    return "" if already else f"{target} is not paused"


def consequence(verb: str, target: str) -> str:
    """What would come of it now, with numbers."""
    kind, _, name = target.partition(" ")
    if verb == Verb.RUN_NOW:
        due = len(run_now.choose(**{kind: name}))  # type: ignore[arg-type]
        return f"{due:,} messages that wait for their back-off become due now."
    count = _open(kind, name)
    waiting = count["pending"] + count["scheduled"] + count["blocked"] + count["paused"]
    if verb == Verb.PAUSE:
        begun = count["published"] + count["running"]
        return (
            f"{waiting:,} messages wait, as will all that come, and those behind them in an ordered group;"
            f" {begun:,} that the broker holds or a worker runs go on."
        )
    return f"{waiting:,} messages wait, and are published when their time has come; those behind them in an ordered group follow."


def _open(kind: str, name: str) -> dict[str, int]:
    """How many messages of a queue or a task, each a column of this name, are in each open state."""
    counts = ", ".join(
        f"(SELECT count(*) FROM outbox_outboxmessage WHERE {condition} AND {kind} = %(name)s)"
        for condition in OPEN_BY_INDEX.values()
    )
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {counts}", {"name": name})
        return dict(zip(OPEN_BY_INDEX, cursor.fetchone(), strict=True))
