"""The admin's list of messages: to look at, not to edit; the journal alone changes a row."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from outbox import journal
from outbox.models import OutboxMessage, RelayProcess, Schedule, Worker


class ReadOnlyAdmin(admin.ModelAdmin):
    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(OutboxMessage)
class OutboxMessageAdmin(ReadOnlyAdmin):
    list_display = (
        "created_at",
        "task",
        "status",
        "queue",
        "attempts",
        "deliveries",
        "duplicates",
        "correlation_id",
    )
    list_filter = ("status", "queue", "task")
    search_fields = ("=message_id", "correlation_id", "ordering_key")
    # Counting a table of millions for the page's footer would take seconds.
    show_full_result_count = False
    actions = ("cancel_selected",)

    @admin.action(description="Cancel the selected messages that no run has begun", permissions=["cancel"])
    def cancel_selected(self, request: HttpRequest, queryset: QuerySet[OutboxMessage]) -> None:
        chosen = list(queryset.exclude(status="dead").values_list("message_id", flat=True))
        done = sum(journal.cancel(message_id, reason=f"by {request.user}") for message_id in chosen)
        self.message_user(request, f"{done} of {len(chosen)} messages cancelled", messages.SUCCESS)

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("outbox.change_outboxmessage")


@admin.register(Worker)
class WorkerAdmin(ReadOnlyAdmin):
    list_display = ("hostname", "pid", "concurrency", "active", "started_at", "beat_at")


@admin.register(Schedule)
class ScheduleAdmin(ReadOnlyAdmin):
    list_display = ("name", "next_at", "spec")


@admin.register(RelayProcess)
class RelayProcessAdmin(ReadOnlyAdmin):
    list_display = ("incarnation", "idle", "seen_at")
