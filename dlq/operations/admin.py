"""The page of an operation: what would come of it, its confirmation, its progress, and the buttons that hold or end it.

The list of them is the record of all that was done here: replays, edits, discards, exports and notes.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.defaultfilters import pluralize
from django.template.response import TemplateResponse
from django.urls import reverse

from dlq.masking import masked_text
from dlq.models import DeadLetter
from dlq.operations import control, driver, selection
from dlq.operations.models import BULK, ENDED, HELD, Kind, Operation, Progress
from dlq.operations.progress import numbers, refusals
from dlq.permissions import lacking, may, require, says_why

#: A canary is offered for selections from this size on.
CANARY, CANARY_FROM = 10, 20
RATE = 20
#: Reasons of refusals on the page.
MAX_REASONS = 10


class ReplayForm(forms.Form):
    canary = forms.IntegerField(
        min_value=0,
        label="Canary",
        help_text="send this many first, and the others only after their outcome; 0: none",
    )
    rate = forms.IntegerField(min_value=0, label="Rate", help_text="a second at most; 0: no limit")
    stop_above = forms.IntegerField(
        min_value=0,
        max_value=100,
        label="Stop above",
        help_text="percent of those sent that failed again; 100: never stop",
    )
    retries = forms.IntegerField(
        min_value=0, max_value=100, required=False, help_text="of each run; empty: as its task says"
    )
    force = forms.BooleanField(required=False, label="Also what could not be read")
    reason = forms.CharField(max_length=1000, required=False, help_text="what was mended")


class DiscardForm(forms.Form):
    reason = forms.CharField(max_length=1000, error_messages={"required": "A discard needs a reason."})


def ask(
    request: HttpRequest,
    kind: Kind,
    dead_letters: QuerySet[DeadLetter],
    chosen_by: str,
    *,
    canary: bool | None = None,
) -> HttpResponseRedirect:
    """Freeze these dead letters, and go to the page that shows what would come of it.

    `canary`: whether the page proposes one; None: where the selection is large. An empty selection makes no
    operation: the page that asked shows an error.
    """
    operation = selection.draft(kind, dead_letters, actor=request.user.get_username(), chosen_by=chosen_by)
    if not operation.selected:
        operation.delete()
        messages.error(request, f"There is nothing to {kind}: no dead letter is selected.")
        return HttpResponseRedirect(request.get_full_path())
    url = reverse("admin:dlq_operation_change", args=[operation.pk])
    return HttpResponseRedirect(url if canary is None else f"{url}?canary={int(canary)}")


@admin.register(Operation)
class OperationAdmin(admin.ModelAdmin):
    """A list of all that was asked for, and by whom; an operation changes by the buttons of its page."""

    list_display = ("kind", "state", "selected", "actor", "why", "started_at", "ended_at")
    list_filter = ("kind", "state")
    show_full_result_count = False
    actions = None

    @admin.display(description="reason")
    def why(self, operation: Operation) -> str:
        return masked_text(operation.reason)

    @says_why
    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show the operation, or do what one of its buttons says."""
        require(request, "view")
        operation = self.get_object(request, object_id)
        if operation is None:
            raise Http404(f"There is no operation {object_id}.")
        form = None
        if request.method == "POST":
            if operation.kind not in BULK:
                raise PermissionDenied(f"The record of the {operation.get_kind_display()} cannot be changed.")
            require(request, operation.kind)
            form = self._act(request, operation)
            if form is None:
                return HttpResponseRedirect(request.path)
        return TemplateResponse(request, "admin/dlq/operation.html", self._context(request, operation, form))

    def _act(self, request: HttpRequest, operation: Operation) -> forms.Form | None:
        """Do it, and say so; the form where it has errors."""
        actor, verb = request.user.get_username(), request.POST.get("verb")
        try:
            if verb == "start":
                form = _form(operation, request.POST)
                if not form.is_valid():
                    return form
                control.start(operation, actor=actor, **form.cleaned_data)
            elif verb == "pause":
                control.pause(operation.pk, actor=actor)
            elif verb == "resume":
                control.resume(operation.pk, actor=actor)
            elif verb == "cancel":
                said = control.cancel(operation.pk, actor=actor)
                self.message_user(request, f"Cancelled: {said.line()}.", messages.WARNING)
        except control.NotPossible as why:
            self.message_user(request, str(why), messages.ERROR)
        return None

    def _context(self, request: HttpRequest, operation: Operation, form: forms.Form | None) -> dict[str, Any]:
        drafted = operation.state == Progress.DRAFTED
        count, counted = operation.selected, numbers(operation.pk)
        return {
            **self.admin_site.each_context(request),
            "title": f"{operation.get_kind_display().capitalize()} {count} dead letter{pluralize(count)}",
            "opts": self.opts,
            "operation": operation,
            "numbers": counted,
            "ended": operation.state in ENDED,
            "held": operation.state in HELD,
            "sends": operation.kind in (*BULK, Kind.EDIT),
            "controls": operation.kind in BULK,
            "live": not drafted and (operation.state == Progress.RUNNING or counted.outstanding),
            "driver_waits": "" if operation.state in ENDED else driver.held_back(),
            "preflight": selection.preflight(operation) if drafted else None,
            "form": (form or _form(operation, canary=request.GET.get("canary"))) if drafted else None,
            "refused": refusals(operation).lines()[:MAX_REASONS],
            "reason": masked_text(operation.reason),
            "history": operation.history,
            "may": operation.kind in BULK and may(request, operation.kind),
            "lacking": lacking(operation.kind) if operation.kind in BULK else "",
        }

    @says_why
    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        require(request, "view")
        return super().changelist_view(request, extra_context)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may(request, "view")

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def _form(operation: Operation, data: Any = None, *, canary: str | None = None) -> forms.Form:
    if operation.kind == Kind.DISCARD:
        return DiscardForm(data)
    wanted = operation.selected > CANARY_FROM if canary is None else canary == "1"
    initial = {"canary": CANARY if wanted else 0, "rate": RATE, "stop_above": operation.stop_above}
    return ReplayForm(data, initial=initial)
