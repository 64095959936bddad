"""The page on which an operator changes the arguments of a dead letter and sends the copy; secrets are masked, and kept."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import reverse

from dlq import arguments
from dlq.masking import MASK, masked_text
from dlq.models import DeadLetter
from dlq.operations.edit import edit
from dlq.permissions import require
from dlq.replay import NotReplayable

#: Names of the fields of arguments begin with this: an argument may be called like another field.
_PREFIX = "argument:"
#: Rows of the field of one argument.
MAX_ROWS = 20


class EditForm(forms.Form):
    """A field for each argument, with its value as JSON; one that is emptied is left out of the call."""

    failures = forms.IntegerField(widget=forms.HiddenInput)
    retries = forms.IntegerField(
        min_value=0, max_value=100, required=False, help_text="of the copy; empty: as its task says"
    )
    reason = forms.CharField(max_length=1000, required=False, help_text="what was wrong")

    def __init__(self, dead_letter: DeadLetter, data: Any = None) -> None:
        super().__init__(data, initial={"failures": dead_letter.failures})
        given = {each.name: _pretty(each.shown) for each in arguments.arguments(dead_letter)}
        fields = {}
        for name, shown in {**given, **dict.fromkeys(arguments.missing(dead_letter), "")}.items():
            rows = min(MAX_ROWS, 1 + shown.count("\n"))
            fields[_PREFIX + name] = forms.CharField(
                label=name,
                required=False,
                initial=shown,
                widget=forms.Textarea(attrs={"rows": rows, "cols": 80, "spellcheck": "false"}),
                help_text="masked: left as it is, the value behind the mask stays" if MASK in shown else "",
            )
        self.given = set(given)
        self.fields = {**fields, **self.fields}

    def clean(self) -> dict[str, Any]:
        """`changes` and `without`, as `dlq.operations.edit.edit` takes them."""
        changes, without = {}, []
        for field, typed in list(self.cleaned_data.items()):
            name = field.removeprefix(_PREFIX)
            if name == field:
                continue
            if typed:
                try:
                    changes[name] = arguments.parsed(name, typed)
                except arguments.InvalidArgument as why:
                    self.refuse(why)
            elif name in self.given:
                without.append(name)
        return {**self.cleaned_data, "changes": changes, "without": without}

    def refuse(self, why: NotReplayable) -> None:
        """Show the reason at the argument that it is about, if it is about one."""
        field = _PREFIX + getattr(why, "name", "")
        self.add_error(field if field in self.fields else None, masked_text(str(why)))


def show(request: HttpRequest, site: admin.AdminSite, opts: Any, pk: int) -> HttpResponse:
    """The form, or the outcome of sending it."""
    require(request, "view", "edit")
    dead_letter = get_object_or_404(DeadLetter, pk=pk)
    try:
        form = EditForm(dead_letter, request.POST if request.method == "POST" else None)
    except NotReplayable as why:
        messages.error(request, masked_text(str(why)))
        return HttpResponseRedirect(reverse("admin:dlq_deadletter_change", args=[pk]))
    if request.method == "POST" and form.is_valid() and (answer := _sent(request, pk, form)):
        return answer
    context = {
        **site.each_context(request),
        "title": f"Edit and replay {dead_letter.call or dead_letter.message_id}",
        "opts": opts,
        "dead_letter": dead_letter,
        "form": form,
    }
    return TemplateResponse(request, "admin/dlq/edit.html", context)


def _sent(request: HttpRequest, pk: int, form: EditForm) -> HttpResponse | None:
    wanted = {name: form.cleaned_data[name] for name in ("without", "reason", "retries", "failures")}
    try:
        operation = edit(pk, form.cleaned_data["changes"], actor=request.user.get_username(), **wanted)
    except NotReplayable as why:
        form.refuse(why)
        return None
    messages.success(request, "The edited copy was sent.")
    return HttpResponseRedirect(reverse("admin:dlq_operation_change", args=[operation.pk]))


def _pretty(value: Any) -> str:
    return json.dumps(
        value, indent=1 if isinstance(value, (dict, list)) else None, ensure_ascii=False, default=str
    )
