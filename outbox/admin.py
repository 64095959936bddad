"""The admin's list of messages, read-only: only the journal changes a row."""

import json
from functools import cached_property
from typing import Any
from urllib.parse import quote

from django.contrib import admin, messages
from django.core.paginator import Paginator
from django.db import connection
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import pluralize
from django.utils.html import format_html
from django.utils.timezone import localtime

from outbox import conf, dlq_hooks, operator_page, report, run_now, transitions, trouble
from outbox.enqueue import task_names
from outbox.models import OperatorAction, OutboxMessage, RelayProcess, Schedule, Worker
from outbox.pausing import pauses_of
from outbox.status import PAUSED_UNTIL, Status, Verb

#: Rows that the list counts one by one; a longer one is as long as the statistics say, or ends here.
MAX_COUNTED = 10_000


class EstimatingPaginator(Paginator):
    """Pages a table of any length without counting it: the whole list by the planner's estimate of its rows."""

    @cached_property
    def count(self) -> int:
        found: QuerySet[Any] = self.object_list  # type: ignore[assignment]
        counted = found.order_by()[:MAX_COUNTED].count()
        if counted < MAX_COUNTED or found.query.where:
            return counted
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT reltuples::bigint FROM pg_class WHERE oid = %s::regclass",
                [found.model._meta.db_table],
            )
            # -1 where nothing was analyzed yet.
            return max(counted, cursor.fetchone()[0])


class KnownValues(admin.SimpleListFilter):
    """A filter whose values are known beforehand; Django's own asks the whole table for those that occur."""

    def known(self) -> list[str]:
        raise NotImplementedError

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(value, value) for value in self.known()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        return queryset if value is None else queryset.filter(**{str(self.parameter_name): value})


class QueueFilter(KnownValues):
    title = parameter_name = "queue"

    def known(self) -> list[str]:
        return list(conf.queues())


class TaskFilter(KnownValues):
    title = parameter_name = "task"

    def known(self) -> list[str]:
        return task_names()


class ReadOnlyAdmin(admin.ModelAdmin):
    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def _masked(name: str) -> Any:
    """A read-only field that shows this one without secrets."""

    @admin.display(description=name)
    def shown(message: OutboxMessage) -> str:
        return json.dumps(report.masked(getattr(message, name)), ensure_ascii=False, indent=1)

    return shown


class TroubleFilter(admin.SimpleListFilter):
    """The first of them, so that a list beside a million is as quick."""

    title = parameter_name = "trouble"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(trouble.LATE, "late"), (trouble.PAUSED, "waits for a resume")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if value not in (trouble.LATE, trouble.PAUSED):
            return queryset
        # Not as a sub-select: the planner may think to find some of them soon by walking the whole table.
        found = (each.values_list("pk", "trouble") for each in trouble.first_in_trouble(value))
        chosen = [pk for rows in found for pk, its in rows if its == value]
        return queryset.filter(pk__in=chosen[: trouble.FOUND])


@admin.register(OutboxMessage)
class OutboxMessageAdmin(ReadOnlyAdmin):
    list_display = (
        "created_at",
        "call",
        "state",
        "queue",
        "attempts",
        "deliveries",
        "duplicates",
        "correlation",
    )
    list_filter = ("status", TroubleFilter, QueueFilter, TaskFilter)
    search_fields = ("=message_id", "correlation_id", "ordering_key")
    # Counting a table of millions, for the pages, the footer or the filters, would take seconds.
    paginator = EstimatingPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    exclude = ("args", "kwargs", "headers", "errors", "correlation_id", "status", "deliver_at")
    readonly_fields = ("whole_call", "state", "due", "correlation", _masked("headers"), _masked("errors"))
    actions = ("cancel_selected", "run_now_selected", "replay_selected")

    @admin.display(description="task", ordering="task")
    def call(self, message: OutboxMessage) -> str:
        return f"{message.task}({report.arguments(message.task, message.args, message.kwargs)})"

    def get_queryset(self, request: HttpRequest) -> QuerySet[OutboxMessage]:
        return super().get_queryset(request).annotate(trouble=trouble.TROUBLE)

    @admin.display(description="status", ordering="status")
    def state(self, message: Any) -> str:
        return trouble.PAUSED if message.trouble == trouble.PAUSED else message.status

    @admin.display(description="deliver at")
    def due(self, message: OutboxMessage) -> str:
        """And for which resume it waits, but not the time for which it is set aside: that does not come."""
        at, pause = message.deliver_at, pauses_of([message]).get(message.pk)
        text = f"{localtime(at):%Y-%m-%d %H:%M:%S}" if at < PAUSED_UNTIL else "set aside"
        if pause is None:
            return text
        return format_html(
            '{}; waits until <a href="{}">{} is resumed</a>{}: {}, since {}',
            *(text, operator_page.address(Verb.RESUME, pause.target), pause.target),
            " and the head of its group has run" if pause.is_of_head else "",
            *(pause.reason, f"{localtime(pause.since):%Y-%m-%d %H:%M:%S}"),
        )

    @admin.display(description="call")
    def whole_call(self, message: OutboxMessage) -> str:
        """Its task says which position is which argument, and which arguments are secret."""
        return f"{message.task}({report.arguments(message.task, message.args, message.kwargs, limit=None)})"

    @admin.display(description="correlation id", ordering="correlation_id")
    def correlation(self, message: OutboxMessage) -> str:
        """With a link to what it stands for, where `OUTBOX_LINKS` has one."""
        text = message.correlation_id
        for begin, address in conf.links().items():
            if text.startswith(begin) and text != begin:
                return format_html(
                    '<a href="{}">{}</a>', address.format(quote(text.removeprefix(begin), safe="")), text
                )
        return text

    @admin.action(description="Cancel the selected messages that have not started", permissions=["cancel"])
    def cancel_selected(self, request: HttpRequest, queryset: QuerySet[OutboxMessage]) -> None:
        chosen = list(queryset.exclude(status=Status.DEAD).values_list("message_id", flat=True))
        done = sum(transitions.cancel(message_id, reason=f"by {request.user}") for message_id in chosen)
        self.message_user(request, f"{done} of {len(chosen)} messages cancelled", messages.SUCCESS)

    @admin.action(description="Run the selected scheduled messages now", permissions=["cancel"])
    def run_now_selected(self, request: HttpRequest, queryset: QuerySet[OutboxMessage]) -> None:
        """All that a filter by task, queue or status leaves, too: then those alone that have run before."""
        scheduled = queryset.filter(status=Status.SCHEDULED)
        if request.POST.get("select_across") == "1":
            scheduled = scheduled.exclude(errors=[])
        chosen = list(scheduled.order_by("deliver_at").values_list("id", "generation")[: run_now.MOST])
        done = run_now.run_chosen(chosen, target="selected messages", actor=request.user.get_username())
        self.message_user(request, f"{done} scheduled message{pluralize(done)} run now", messages.SUCCESS)

    @admin.action(description="Run the selected dead messages again", permissions=["replay"])
    def replay_selected(self, request: HttpRequest, queryset: QuerySet[OutboxMessage]) -> None:
        chosen = list(queryset.filter(status=Status.DEAD).values_list("message_id", flat=True))
        done = 0
        for message_id in chosen:
            try:
                done += dlq_hooks.republish(str(message_id)) is not None
            except dlq_hooks.Refused as refused:
                self.message_user(request, f"{message_id}: {refused}", messages.WARNING)
        self.message_user(request, f"{done} of {len(chosen)} dead messages run again", messages.SUCCESS)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        actions: dict[str, Any] = super().get_actions(request)
        if conf.dead_letters():
            # Its desk sends them again, with a record of who did.
            actions.pop("replay_selected", None)
        return actions

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return self.has_cancel_permission(request)

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("outbox.change_outboxmessage")


@admin.register(OperatorAction)
class OperatorActionAdmin(ReadOnlyAdmin):
    """The record of pauses, resumes and messages that were run now; to add an action is to do it."""

    list_display = ("at", "actor", "verb", "target", "messages", "reason")
    list_filter = ("verb",)
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(operator_page.PERMISSION)

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        return operator_page.show(request, self.admin_site, self.opts)


@admin.register(Worker)
class WorkerAdmin(ReadOnlyAdmin):
    list_display = ("role", "hostname", "pid", "concurrency", "active", "started_at", "beat_at")
    list_filter = ("role",)


@admin.register(Schedule)
class ScheduleAdmin(ReadOnlyAdmin):
    list_display = ("name", "next_at", "spec")


@admin.register(RelayProcess)
class RelayProcessAdmin(ReadOnlyAdmin):
    list_display = ("incarnation", "idle", "seen_at")
