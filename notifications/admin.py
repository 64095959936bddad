from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from notifications.models import EmailLog, EmailTemplate


@admin.register(EmailTemplate)
class EmailTemplateAdmin(admin.ModelAdmin):
    list_display = ("name", "subject")
    search_fields = ("name", "subject")


@admin.register(EmailLog)
class EmailLogAdmin(admin.ModelAdmin):
    """What was sent, to whom and when: looked at, never edited."""

    list_display = ("key", "to", "subject", "status", "attempts", "last_error", "sent_at")
    list_filter = ("status", "template_name")
    search_fields = ("=key", "to", "=message_id")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
