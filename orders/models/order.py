"""The order, its lines, and the log of what happened to it."""

from typing import Any

from django.db import models
from django.db.models import F, Q

from orders.models.catalogue import Product
from orders.models.customers import Customer


class OrderStatus(models.TextChoices):
    """Where an order stands."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


#: It ended without a sale: keeping its money would be wrong.
UNSOLD = (OrderStatus.CANCELLED, OrderStatus.FAILED)


class Order(models.Model):
    """One purchase: pending → processing → completed | failed | cancelled.

    Amounts are integers in minor units (cents) of `currency`; they are derived once, when the order is
    placed, and never added to in place, so that a second run cannot make an order dearer. Who may work on the
    order is decided by the lease (`lease_owner`, `lease_until`) and `fence`, which only `orders.lifecycle`
    writes.
    """

    Status = OrderStatus

    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="orders")
    status = models.CharField(max_length=10, choices=Status, default=Status.PENDING)
    currency = models.CharField(max_length=3, default="usd")
    subtotal_cents = models.BigIntegerField()
    tax_cents = models.BigIntegerField(default=0)
    total_cents = models.BigIntegerField()
    payment_method = models.CharField(max_length=255, blank=True, default="")
    receipt_email = models.EmailField(blank=True, default="")

    payment_intent_id = models.CharField(
        max_length=255,
        blank=True,
        default="",
        help_text="The gateway PaymentIntent, committed before it is confirmed.",
    )
    payment_id = models.CharField(
        max_length=255, blank=True, default="", help_text="Set when the charge is known."
    )
    processing_count = models.IntegerField(
        default=0, help_text="How often a completion was committed: 0 or 1."
    )
    failure_reason = models.CharField(max_length=500, blank=True, default="")

    lease_owner = models.CharField(max_length=64, blank=True, default="")
    lease_until = models.DateTimeField(null=True, blank=True)
    fence = models.BigIntegerField(default=0)

    created_at = models.DateTimeField(auto_now_add=True)
    completed_at = models.DateTimeField(null=True, blank=True)
    cancelled_at = models.DateTimeField(null=True, blank=True)
    refund_requested_at = models.DateTimeField(null=True, blank=True)
    stock_shipped_at = models.DateTimeField(null=True, blank=True)
    counted_at = models.DateTimeField(
        null=True, blank=True, help_text="When analytics counted it, at most once."
    )

    class Meta:
        permissions = [("view_journey", "Can see the journey of an order")]
        constraints = [
            models.CheckConstraint(
                condition=Q(total_cents=F("subtotal_cents") + F("tax_cents")),
                name="orders_order_total_is_the_sum",
            ),
            models.CheckConstraint(
                condition=Q(subtotal_cents__gte=0, tax_cents__gte=0), name="orders_order_amounts_not_negative"
            ),
            models.CheckConstraint(
                condition=Q(status__in=OrderStatus.values),
                name="orders_order_status_known",
            ),
            models.CheckConstraint(
                condition=Q(status=OrderStatus.PROCESSING) | Q(lease_until__isnull=True),
                name="orders_order_lease_only_while_processing",
            ),
            models.CheckConstraint(
                condition=~Q(status=OrderStatus.PENDING) | Q(payment_id=""),
                name="orders_order_pending_is_not_charged",
            ),
        ]
        indexes = [
            models.Index(fields=["customer", "-id"], name="orders_order_by_customer"),
            models.Index(
                fields=["status", "id"],
                condition=Q(status__in=[OrderStatus.PENDING, OrderStatus.PROCESSING]),
                name="orders_order_open",
            ),
            models.Index(fields=["completed_at"], name="orders_order_completed_at"),
            # Reconciliation reads a part of them in each pass. Without the payment in its condition: the update
            # that every charge makes, of the payment's id, would have to touch each index.
            models.Index(fields=["id"], condition=Q(status__in=UNSOLD), name="orders_order_unsold"),
        ]

    def __str__(self) -> str:
        return f"order {self.pk} ({self.status})"

    @property
    def is_completed(self) -> bool:
        return self.status == OrderStatus.COMPLETED

    @property
    def is_unsold(self) -> bool:
        """Whether it ended without a sale: what its payment took goes back."""
        return self.status in UNSOLD

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save; an order that was given only its total is untaxed, so that the amounts always add up."""
        given: Any = self.subtotal_cents  # an unset column of a new row is None, whatever its type says
        if given is None:
            self.subtotal_cents = self.total_cents - self.tax_cents
        super().save(*args, **kwargs)


class OrderItem(models.Model):
    """One line: so many units of a product at the price of the moment when the order was placed."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="items")
    product = models.ForeignKey(Product, on_delete=models.PROTECT)
    quantity = models.IntegerField()
    unit_price_cents = models.BigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["order", "product"], name="orders_item_one_line_per_product"),
            models.CheckConstraint(
                condition=Q(quantity__gt=0, unit_price_cents__gt=0), name="orders_item_positive"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.quantity} x {self.product.sku}"


class OrderTransition(models.Model):
    """One line of an order's log, written in the transaction that made the change. `message_id` is the
    message that was running, if one was: the way from an order to its messages and back."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="transitions")
    from_status = models.CharField(max_length=10, blank=True)
    to_status = models.CharField(max_length=10)
    at = models.DateTimeField(auto_now_add=True)
    note = models.CharField(max_length=500, blank=True, default="")
    message_id = models.UUIDField(null=True, blank=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.from_status or 'new'} → {self.to_status}"
