"""Subscriptions, events, and their deliveries.

`customer_id` and `order_id` are plain numbers: this app knows orders by ids and their published payload only.
"""

import base64
import json
import secrets
import uuid
from datetime import timedelta
from typing import Any, Self

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q

from common.clock import ClockTimestamp
from common.leases import LeaseHeld, SentOnce
from dlq.masking import masked_text
from webhooks.errors import DeliveryInFlight, EndpointRefused
from webhooks.transport import MAX_URL_LENGTH, check_url

# Longer than the slowest post (4 connects of 5 s, then 15 s) plus a slow resolver, so that a lease that has
# run out means a sender that is gone; an event whose sender was killed is late by no more than this.
DELIVERY_LEASE = timedelta(seconds=60)
MAX_EVENT_TYPE_LENGTH = 100


def new_secret() -> str:
    """A signing secret as Standard Webhooks asks: 24 random bytes, base64, with the prefix scanners know."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()


def new_event_id() -> str:
    """An event's id on the wire. No dots: the signed text is joined with them."""
    return f"evt_{uuid.uuid4().hex}"


def validate_endpoint(url: str) -> None:
    """Form validation of an endpoint's URL; the address behind the name is checked again at every call."""
    try:
        check_url(url)
    except EndpointRefused as error:
        raise ValidationError(str(error)) from error


def validate_event_types(value: object) -> None:
    """Form validation of a filter. A text instead of a list would match by substring, unnoticed."""
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise ValidationError('a list of event names is expected, such as ["order.completed"]')


class Subscription(models.Model):
    """One customer's endpoint. A new URL is a new subscription; an old one is switched off, not deleted."""

    customer_id = models.BigIntegerField(db_index=True)
    url = models.CharField(max_length=MAX_URL_LENGTH, validators=[validate_endpoint])
    secret = models.CharField(
        max_length=128, default=new_secret, help_text="Signs every delivery; shared with the customer."
    )
    event_types = models.JSONField(
        default=list,
        blank=True,
        validators=[validate_event_types],
        help_text='A list such as ["order.completed"]; empty: all.',
    )
    is_active = models.BooleanField(default=True)
    disabled_reason = models.CharField(max_length=200, blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["customer_id", "url"], name="webhooks_one_subscription_per_customer_url"
            )
        ]

    def __str__(self) -> str:
        return f"customer {self.customer_id} at {masked_text(self.url)}"

    def wants(self, event_type: str) -> bool:
        """Whether this subscription asked for events of this type."""
        return self.is_active and (not self.event_types or event_type in self.event_types)

    def disable(self, *, reason: str) -> None:
        """Stop deliveries to this endpoint. What is still waiting for it is cancelled when its turn comes."""
        self.is_active, self.disabled_reason = False, reason[:200]
        self.save(update_fields=["is_active", "disabled_reason"])


class Event(models.Model):
    """Something that happened to an order, as it looked when published; one row, however often emitted."""

    event_id = models.CharField(max_length=255, unique=True, default=new_event_id)
    event_type = models.CharField(max_length=MAX_EVENT_TYPE_LENGTH)
    order_id = models.BigIntegerField()
    customer_id = models.BigIntegerField()
    payload = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["order_id", "event_type"], name="webhooks_one_event_per_order_and_type"
            )
        ]

    def __str__(self) -> str:
        return f"{self.event_type} of order {self.order_id}"

    @classmethod
    def record(cls, *, event_type: str, order_id: int, payload: dict[str, Any]) -> Self:
        """The row of this event: a new one, or the one of an earlier copy with its id and its payload.

        It is locked until the transaction ends, so that copies of one event take turns.
        """
        (row,) = cls.objects.raw(
            """
            INSERT INTO webhooks_event (event_id, event_type, order_id, customer_id, payload, created_at)
            VALUES (%s, %s, %s, %s, %s, clock_timestamp())
            ON CONFLICT (order_id, event_type) DO UPDATE SET event_type = excluded.event_type
            RETURNING *
            """,
            [new_event_id(), event_type, order_id, payload["customer_id"], json.dumps(payload)],
        )
        return row


class Delivery(SentOnce):
    """One event to one endpoint: the durable answer to 'was it sent?', and the lease of its sender."""

    IDENTITY = ("event_id", "endpoint")
    LEASE = DELIVERY_LEASE

    class Status(models.TextChoices):
        OPEN = "open"
        SENT = "sent"
        CANCELLED = "cancelled"

    event_id = models.CharField(max_length=255)
    endpoint = models.CharField(max_length=MAX_URL_LENGTH)
    event_type = models.CharField(max_length=MAX_EVENT_TYPE_LENGTH)
    subscription = models.ForeignKey(
        Subscription, null=True, on_delete=models.PROTECT, help_text="None for a direct call of send_webhook."
    )
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.OPEN)
    http_status = models.PositiveSmallIntegerField(null=True)

    class Meta:
        verbose_name_plural = "deliveries"
        constraints = [
            models.UniqueConstraint(
                fields=["event_id", "endpoint"], name="webhooks_one_delivery_per_event_and_endpoint"
            ),
            models.CheckConstraint(
                condition=Q(status="sent", sent_at__isnull=False)
                | (~Q(status="sent") & Q(sent_at__isnull=True)),
                name="webhooks_delivery_sent_has_its_time",
            ),
            models.CheckConstraint(
                condition=Q(lease_token__isnull=True, lease_until__isnull=True)
                | (Q(status="open") & Q(lease_token__isnull=False, lease_until__isnull=False)),
                name="webhooks_delivery_lease_only_while_open",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.event_id} to {masked_text(self.endpoint)}"

    @classmethod
    def claim(cls, *, event_id: str, endpoint: str, event_type: str) -> Self:
        """Take the right to post this event to this endpoint, for `DELIVERY_LEASE`: see `SentOnce.claim_row`. Raises
        DeliveryInFlight with the seconds left while another sender's lease runs.
        """
        try:
            return cls.claim_row(cls(event_id=event_id, endpoint=endpoint, event_type=event_type))
        except LeaseHeld as held:
            raise DeliveryInFlight(str(held), retry_after=held.seconds_left) from None

    def cancel(self, *, reason: str) -> None:
        """Not to be sent any more; leaves alone what was sent or is being sent."""
        Delivery.objects.filter(pk=self.pk, status=self.Status.OPEN).filter(
            Q(lease_until__isnull=True) | Q(lease_until__lt=ClockTimestamp())
        ).update(status=self.Status.CANCELLED, lease_token=None, lease_until=None, last_error=reason[:500])
