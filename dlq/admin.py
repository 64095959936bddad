"""The dead-letter desk: search, replay, discard and group dead letters; `dlq.admin_display` is what it shows of each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_plus, urlsplit

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse

from dlq import conf, edit_page, export, groups_page
from dlq.admin_display import Shown
from dlq.admin_filters import ExceptionFilter, QueueFilter, StateFilter, TaskFilter
from dlq.message import text
from dlq.models import LARGE, DeadLetter
from dlq.operations import audit
from dlq.operations.admin import ask
from dlq.operations.models import BULK, Kind
from dlq.permissions import lacking, may, require, says_why


def _chosen_by(request: HttpRequest) -> str:
    """How the operator chose: all that the list's filters leave, or some of them."""
    if request.POST.get("select_across") == "1":
        return f"all that match {unquote_plus(request.GET.urlencode()) or 'no filter'}"
    return "selected one by one"


def _file(lines: Iterator[str], content_type: str, name: str) -> StreamingHttpResponse:
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"}
    return StreamingHttpResponse(lines, content_type=f"{content_type}; charset=utf-8", headers=headers)


@admin.register(DeadLetter)
class DeadLetterAdmin(Shown, admin.ModelAdmin):
    """View only: a dead letter changes by its actions, each of which asks for its own permission."""

    list_display = ("what", "problem", "badge", "failed_replays", "failed_ago", "queue", "cause")
    list_display_links = ("what", "problem")
    list_filter = (("state", StateFilter), "cause", QueueFilter, TaskFilter, ExceptionFilter, "failed_at")
    list_select_related = False
    # Nothing that may hold a secret: a search for its beginnings would find it out, letter by letter.
    search_fields = ("=message_id", "task", "exception", "place", "=correlation_id", "=fingerprint")
    search_help_text = (
        "id, task, exception, the function that raised, correlation id, or an argument: order_id=999, or 999"
    )
    # The columns of the filters; and the fingerprint, by which the groups page and a dead letter's own page link to the
    # list.
    linked_by = ("state", "cause", "queue", "task", "exception", "failed_at", "fingerprint")
    list_per_page = 50
    show_full_result_count = False
    actions = ("replay_selected", "discard_selected", "export_csv", "export_json_lines")
    change_list_template = "admin/dlq/change_list.html"
    change_form_template = "admin/dlq/detail.html"
    fieldsets = (
        (None, {"fields": ("what", "badge", "problem", "call", "shown_traceback")}),
        (
            "Message",
            {
                "fields": (
                    "message_id",
                    "task",
                    "subjects",
                    "links",
                    "lineage",
                    "children",
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
        """Also finds what was called with this argument: by its whole value, since the beginning of an id is another id.

        A number is compared with values of arguments, with ids, and with what `DLQ_LINKS` reads from correlation ids,
        and with no part of a name.
        """
        term = text(search_term.strip())
        if term.isdecimal():
            begins = [
                begin.removeprefix("correlation_id=")
                for begin in conf.links()
                if begin.startswith("correlation_id=")
            ]
            ids = {term, *(f"{begin}{term}" for begin in begins)}
            return queryset.filter(
                Q(about__contains=[term]) | Q(message_id=term) | Q(correlation_id__in=ids)
            ), False
        found, may_repeat = super().get_search_results(request, queryset, search_term)
        if term:
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

    @admin.action(description="Export selected as CSV", permissions=["export"])
    def export_csv(self, request: HttpRequest, dead_letters: QuerySet[DeadLetter]) -> StreamingHttpResponse:
        """A table for a spreadsheet, secrets masked."""
        self._exported(request, dead_letters.count(), "as CSV")
        return _file(export.csv_lines(dead_letters), "text/csv", "dead-letters.csv")

    @admin.action(description="Export selected as JSON lines", permissions=["export"])
    def export_json_lines(
        self, request: HttpRequest, dead_letters: QuerySet[DeadLetter]
    ) -> StreamingHttpResponse:
        """Everything that their pages show, secrets masked."""
        self._exported(request, dead_letters.count(), "as JSON lines")
        return _file(export.json_lines(dead_letters), "application/jsonl", "dead-letters.jsonl")

    def _exported(self, request: HttpRequest, count: int, what: str) -> None:
        """Record who has exported what."""
        chosen_by = _chosen_by(request) if request.method == "POST" else ""
        audit.record(
            Kind.EXPORT,
            f"exported {what}",
            actor=request.user.get_username(),
            chosen_by=chosen_by,
            selected=count,
        )

    def has_export_permission(self, request: HttpRequest) -> bool:
        return may(request, "export")

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return may(request, "replay")

    def has_discard_permission(self, request: HttpRequest) -> bool:
        return may(request, "discard")

    def has_raw_permission(self, request: HttpRequest) -> bool:
        return may(request, "raw")

    def has_view_permission(self, request: HttpRequest, obj: DeadLetter | None = None) -> bool:
        return may(request, "view")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: DeadLetter | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: DeadLetter | None = None) -> bool:
        return False

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Only columns that the page itself offers: any other could be guessed from what a filter finds."""
        return lookup.partition("__")[0] in self.linked_by

    # --- groups ----------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("groups/", view(self.groups_view), name="dlq_deadletter_groups"),
            path("<int:pk>/act/", view(self.act_view), name="dlq_deadletter_act"),
            path("<int:pk>/edit/", view(self.edit_view), name="dlq_deadletter_edit"),
            path("<int:pk>/bytes/", view(self.bytes_view), name="dlq_deadletter_bytes"),
            *super().get_urls(),
        ]

    @says_why
    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        require(request, "view")
        verbs = ("replay", "discard")
        context = {
            "verbs": [(each, each.capitalize()) for each in verbs if may(request, each)],
            "may_edit": may(request, "edit"),
            "lacking": [lacking(each) for each in (*verbs, "edit", "raw") if not may(request, each)],
        }
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})

    @says_why
    def act_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """A button of the page: an operation on this dead letter alone."""
        verb = request.POST.get("verb", "")
        if verb not in BULK:
            raise PermissionDenied("There is no such button.")
        require(request, "view", verb)
        get_object_or_404(DeadLetter.objects.only("pk"), pk=pk)
        return ask(request, Kind(verb), DeadLetter.objects.filter(pk=pk), "on its own page")

    @says_why
    def edit_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Other arguments for a copy that runs in its place."""
        return edit_page.show(request, self.admin_site, self.opts, pk)

    @says_why
    def bytes_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The body of the received message as a file, for those who may see secrets."""
        require(request, "view", "raw")
        raw = get_object_or_404(DeadLetter, pk=pk).message
        if raw is None:
            raise Http404("The message was not kept: the journal has it.")
        self._exported(request, 1, f"the bytes of dead letter {pk}")
        return HttpResponse(
            raw.body,
            content_type="application/octet-stream",
            # Garbage may be a page with a script: no browser is to show it.
            headers={
                "Content-Disposition": f'attachment; filename="dead-letter-{pk}.bin"',
                "X-Content-Type-Options": "nosniff",
            },
        )

    @says_why
    def groups_view(self, request: HttpRequest) -> HttpResponse:
        """The problems behind the open dead letters, with what is done about each."""
        return groups_page.show(request, self.admin_site, self.opts)

    @says_why
    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """The list; a visit from another page that asks for no filter is redirected to the groups page."""
        require(request, "view")
        came_from = urlsplit(request.headers.get("Referer", "")).path
        if request.method == "GET" and not request.GET and came_from != request.path:
            return HttpResponseRedirect(reverse("admin:dlq_deadletter_groups"))
        return super().changelist_view(request, extra_context)
