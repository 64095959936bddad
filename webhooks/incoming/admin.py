import json
from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from . import conf
from .models import IncomingEvent


@admin.register(IncomingEvent)
class IncomingEventAdmin(admin.ModelAdmin):
    """A record of what happened: looked at, never edited."""

    list_display = ("event_id", "event_type", "provider", "received_at")
    list_filter = ("event_type",)
    search_fields = ("=event_id",)
    fields = ("event_id", "event_type", "provider", "received_at", "shown_payload")

    @admin.display(description="payload")
    def shown_payload(self, obj: IncomingEvent) -> str:
        """Without the secrets that the provider put into it."""
        masked = conf.masked()
        return json.dumps(masked(obj.payload), ensure_ascii=False, indent=1) if masked else "(not shown)"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
