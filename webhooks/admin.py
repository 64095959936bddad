from typing import Any

from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest

from common.admin import ReadOnlyAdmin, link_to_journey
from dlq.masking import masked_text
from webhooks.models import Delivery, Event, Subscription


@admin.register(Subscription)
class SubscriptionAdmin(admin.ModelAdmin):
    list_display = ("customer_id", "address", "is_active", "disabled_reason", "created_at")
    list_filter = ("is_active",)
    search_fields = ("=customer_id", "url")

    # The secret signs in our name: shown once, when it is made, and never a mask that a save would write
    # back.
    exclude = ("secret",)

    @admin.display(description="url", ordering="url")
    def address(self, obj: Subscription) -> str:
        """Without what its query or its user part hides."""
        return masked_text(obj.url)

    def shown_once(self, obj: Subscription) -> tuple[str, str]:
        return "The signing secret of this subscription", obj.secret

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        # What was published to an address is recorded under it: a new address is a new subscription.
        return ("customer_id", "address") if obj else ()

    def get_exclude(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return (*self.exclude, "url") if obj else self.exclude


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    list_display = ("event_id", "event_type", "order_id", "customer_id", "created_at")
    list_filter = ("event_type",)
    search_fields = ("=event_id", "=order_id")


@admin.register(Delivery)
class DeliveryAdmin(ReadOnlyAdmin):
    list_display = (
        "event_id",
        "event_type",
        "order",
        "endpoint",
        "status",
        "attempts",
        "http_status",
        "last_error",
        "sent_at",
    )
    list_filter = ("status", "event_type")
    search_fields = ("=event_id", "endpoint")
    readonly_fields = ("order",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Delivery]:
        order = Event.objects.filter(event_id=OuterRef("event_id")).values("order_id")
        return super().get_queryset(request).annotate(order_id=Subquery(order))

    @admin.display(description="order")
    def order(self, obj: Any) -> str:
        """A link to the journey of the order that its event is about."""
        return link_to_journey(obj.order_id)
