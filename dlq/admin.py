"""The dead-letter desk: search, replay, discard and group dead letters; `dlq.admin_display` is what it shows of each."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import PermissionDenied
from django.db.models import Max, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path

from dlq import replay, stats
from dlq.admin_display import Shown
from dlq.message import text
from dlq.models import LARGE, DeadLetter, DeadLetterEvent
from dlq.refusals import Refusals

#: Reasons shown one by one after a bulk action; the rest is a number.
MAX_REASONS = 5


def _newest_seen(request: HttpRequest) -> int:
    """The newest event when the operator was first asked for a reason."""
    seen = request.POST.get("seen", "")
    if re.fullmatch(r"[0-9]{1,18}", seen):
        return int(seen)
    newest: int = DeadLetterEvent.objects.aggregate(newest=Max("pk", default=0))["newest"]
    return newest


@admin.register(DeadLetter)
class DeadLetterAdmin(Shown, admin.ModelAdmin):
    """View only: a dead letter changes by its actions, each of which asks for its own permission."""

    list_display = ("what", "badge", "failed_replays", "failed_ago", "queue", "cause", "problem")
    list_filter = ("state", "cause", "queue", "task", "exception", "failed_at")
    list_select_related = False
    # Nothing that may hold a secret: a search for its beginnings would find it out, letter by letter.
    search_fields = ("message_id", "task", "exception", "place", "correlation_id", "fingerprint")
    search_help_text = (
        "id, task, exception, the function that raised, correlation id, or an argument: order_id=999, or 999"
    )
    date_hierarchy = "failed_at"
    # The groups page, and a dead letter's own, link to the list by it.
    linked_by = ("fingerprint",)
    list_per_page = 50
    show_full_result_count = False
    actions = ("replay_selected", "discard_selected")
    change_list_template = "admin/dlq/change_list.html"
    fieldsets = (
        (None, {"fields": ("what", "badge", "problem", "call", "shown_traceback")}),
        (
            "Message",
            {
                "fields": (
                    "message_id",
                    "task",
                    "subjects",
                    "queue",
                    "shown_headers",
                    "kept_message",
                    "correlation_id",
                    "generation",
                )
            },
        ),
        (
            "Story",
            {
                "fields": (
                    "cause",
                    "attempts",
                    "failures",
                    "worker",
                    "failed_first_at",
                    "failed_at",
                    "timeline",
                )
            },
        ),
        ("Group", {"fields": ("exception", "place", "same_problem")}),
    )
    #: For those alone who may see secrets: the bytes are what was received, with nothing masked.
    raw_fieldset = ("Bytes as received", {"fields": ("shown_bytes",)})
    readonly_fields = tuple(
        str(name) for _, options in (*fieldsets, raw_fieldset) for name in options["fields"]
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[DeadLetter]:
        return super().get_queryset(request).defer(*LARGE)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[DeadLetter], search_term: str
    ) -> tuple[QuerySet[DeadLetter], bool]:
        """Also what was called with this argument: exactly, for the beginning of another id is another id."""
        found, may_repeat = super().get_search_results(request, queryset, search_term)
        if term := text(search_term.strip()):
            found |= queryset.filter(about__contains=[term])
        return found, may_repeat

    def get_fieldsets(self, request: HttpRequest, obj: DeadLetter | None = None) -> Any:
        fieldsets = super().get_fieldsets(request, obj)
        return (*fieldsets, self.raw_fieldset) if self.has_raw_permission(request) else fieldsets

    # --- what can be done ------------------------------------------------------------------------------

    @admin.action(description="Replay selected", permissions=["replay"])
    def replay_selected(self, request: HttpRequest, dead_letters: QuerySet[DeadLetter]) -> None:
        """Send each selected dead letter again; what cannot be sent is named with its reason."""
        actor = request.user.get_username()
        self._each(request, dead_letters, lambda pk: replay.replay(pk, actor=actor), "sent again")

    @admin.action(description="Discard selected, with a reason", permissions=["discard"])
    def discard_selected(
        self, request: HttpRequest, dead_letters: QuerySet[DeadLetter]
    ) -> HttpResponse | None:
        """Ask for the reason, then close each selected dead letter for good."""
        reason = request.POST.get("reason", "").strip()
        if not reason:
            context = {
                **self.admin_site.each_context(request),
                "title": f"Discard {dead_letters.count()} dead letters",
                "dead_letters": dead_letters[:20],
                "count": dead_letters.count(),
                "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
                "seen": _newest_seen(request),
                "select_across": request.POST.get("select_across", "0"),
                "missing": "reason" in request.POST,
                "opts": self.opts,
            }
            return TemplateResponse(request, "admin/dlq/discard.html", context)
        # "All that match" is asked anew here: what came, or failed again, since the page was shown is not meant by it.
        dead_letters = dead_letters.exclude(events__pk__gt=_newest_seen(request))
        actor = request.user.get_username()
        self._each(
            request, dead_letters, lambda pk: replay.discard(pk, reason=reason, actor=actor), "discarded"
        )
        return None

    def _each(
        self, request: HttpRequest, dead_letters: QuerySet[DeadLetter], act: Callable[[int], Any], done: str
    ) -> None:
        count, refused = 0, Refusals()
        for pk, message_id in list(dead_letters.values_list("pk", "message_id")):
            try:
                act(pk)
            except (replay.NotReplayable, replay.NotDiscardable) as exc:
                refused.add(message_id, exc)
            else:
                count += 1
        if count:
            self.message_user(request, f"{count} {done}.", messages.SUCCESS)
        for line in refused.lines()[:MAX_REASONS]:
            self.message_user(request, f"Not {done}, {line}", messages.WARNING)
        if rest := len(refused.lines()[MAX_REASONS:]):
            self.message_user(request, f"{rest} more reasons are not shown.", messages.WARNING)

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("dlq.replay_deadletter")

    def has_discard_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("dlq.discard_deadletter")

    def has_raw_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("dlq.view_raw_deadletter")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: DeadLetter | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: DeadLetter | None = None) -> bool:
        return False

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Only columns that the page itself offers: any other could be guessed from what a filter finds."""
        return lookup.partition("__")[0] in {*self.linked_by, self.date_hierarchy, *self.list_filter}

    # --- groups ----------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("groups/", view(self.groups_view), name="dlq_deadletter_groups"),
            path("<int:pk>/bytes/", view(self.bytes_view), name="dlq_deadletter_bytes"),
            *super().get_urls(),
        ]

    def bytes_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The body of the received message as a file, for those who may see secrets."""
        if not self.has_view_permission(request) or not self.has_raw_permission(request):
            raise PermissionDenied
        raw = get_object_or_404(DeadLetter, pk=pk).message
        if raw is None:
            raise Http404("The message was not kept: the journal has it.")
        return HttpResponse(
            raw.body,
            content_type="application/octet-stream",
            # Garbage may be a page with a script: no browser is to show it.
            headers={
                "Content-Disposition": f'attachment; filename="dead-letter-{pk}.bin"',
                "X-Content-Type-Options": "nosniff",
            },
        )

    def groups_view(self, request: HttpRequest) -> HttpResponse:
        """The problems behind the unresolved dead letters, the largest first."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = {
            **self.admin_site.each_context(request),
            "title": "Dead letters by problem",
            "groups": stats.groups(),
            "opts": self.opts,
        }
        return TemplateResponse(request, "admin/dlq/groups.html", context)
