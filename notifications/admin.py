from django.contrib import admin

from common.admin import ReadOnlyAdmin
from notifications.models import EmailLog, EmailTemplate


@admin.register(EmailTemplate)
class EmailTemplateAdmin(admin.ModelAdmin):
    list_display = ("name", "subject")
    search_fields = ("name", "subject")


@admin.register(EmailLog)
class EmailLogAdmin(ReadOnlyAdmin):
    """What was sent, to whom and when: looked at, never edited."""

    list_display = ("key", "to", "subject", "status", "attempts", "last_error", "sent_at")
    list_filter = ("status", "template_name")
    search_fields = ("=key", "to", "=message_id")
