"""The dead-letter desk: search, replay, discard and group dead letters; `dlq.admin_display` is what it shows of each."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_plus, urlsplit

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse

from dlq import groups_page
from dlq.admin_display import Shown
from dlq.message import text
from dlq.models import LARGE, DeadLetter
from dlq.operations.admin import ask
from dlq.operations.models import Kind
from dlq.permissions import may


def _chosen_by(request: HttpRequest) -> str:
    """How the operator chose: all that the list's filters leave, or some of them."""
    if request.POST.get("select_across") == "1":
        return f"all that match {unquote_plus(request.GET.urlencode()) or 'no filter'}"
    return "selected one by one"


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
    def replay_selected(self, request: HttpRequest, dead_letters: QuerySet[DeadLetter]) -> HttpResponse:
        """Freeze the selection, and ask how it is to be sent."""
        return ask(request, Kind.REPLAY, dead_letters, _chosen_by(request))

    @admin.action(description="Discard selected, with a reason", permissions=["discard"])
    def discard_selected(self, request: HttpRequest, dead_letters: QuerySet[DeadLetter]) -> HttpResponse:
        """Freeze the selection, and ask for the reason."""
        return ask(request, Kind.DISCARD, dead_letters, _chosen_by(request))

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return may(request, "replay")

    def has_discard_permission(self, request: HttpRequest) -> bool:
        return may(request, "discard")

    def has_raw_permission(self, request: HttpRequest) -> bool:
        return may(request, "raw")

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
        """The problems behind the open dead letters, with what is done about each."""
        return groups_page.show(request, self.admin_site, self.opts)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """The list; who comes from elsewhere and asks for none in particular lands on the groups."""
        came_from = urlsplit(request.headers.get("Referer", "")).path
        lands = request.method == "GET" and not request.GET and came_from != request.path
        if lands and self.has_view_permission(request):
            return HttpResponseRedirect(reverse("admin:dlq_deadletter_groups"))
        return super().changelist_view(request, extra_context)
