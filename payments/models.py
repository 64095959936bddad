"""What is owed and what was given back. Amounts are integers in minor units (cents) of a currency."""

from __future__ import annotations

from django.db import models
from django.db.models import Q


class Invoice(models.Model):
    """One order's invoice for one billing period, with its PDF.

    The unique constraint, and not a check before it, is what makes it one: two workers can both see that
    there is none, but only one insert can succeed.
    """

    order = models.ForeignKey("orders.Order", on_delete=models.PROTECT, related_name="+")
    billing_period = models.CharField(max_length=32)
    currency = models.CharField(max_length=3)
    subtotal_cents = models.BigIntegerField()
    tax_cents = models.BigIntegerField()
    total_cents = models.BigIntegerField()
    pdf = models.BinaryField()
    issued_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["order", "billing_period"], name="payments_invoice_one_per_period"
            ),
            models.CheckConstraint(condition=~Q(billing_period=""), name="payments_invoice_has_period"),
            models.CheckConstraint(
                condition=Q(subtotal_cents__gte=0, tax_cents__gte=0, total_cents__gte=0),
                name="payments_invoice_amounts_not_negative",
            ),
        ]

    def __str__(self) -> str:
        return self.number

    @property
    def number(self) -> str:
        """`INV-00000042`: unique and growing, with gaps.

        It comes from the table's sequence, which a rolled-back insert does not give back. Where the law asks
        for numbers without gaps, take them from a counter row locked until the commit; invoices are then
        issued one by one.
        """
        return f"INV-{self.pk:08d}"


class RefundStatus(models.TextChoices):
    """Where a refund stands; see `Refund`."""

    PENDING = "pending"
    DISPUTED = "disputed"
    SUCCEEDED = "succeeded"
    VOIDED = "voided"
    FAILED = "failed"


class Refund(models.Model):
    """The compensation of one order: everything that its payment captured goes back, once.

    `voided` means that there was nothing to give back and the intent was cancelled, so that nothing can
    follow. `disputed`: the gateway refuses it because the customer's bank has taken the money back; it is asked
    for again if the dispute is won. `amount_cents` is the total of the payment's refunds, those made by hand
    included; while `pending`, what it will be.
    """

    Status = RefundStatus

    order = models.OneToOneField("orders.Order", on_delete=models.PROTECT, related_name="+")
    payment_intent_id = models.CharField(max_length=255, blank=True, db_index=True)
    status = models.CharField(max_length=10, choices=Status, default=Status.PENDING)
    gateway_refund_id = models.CharField(max_length=255, blank=True, default="", db_index=True)
    amount_cents = models.BigIntegerField(default=0)
    currency = models.CharField(max_length=3)
    created_at = models.DateTimeField(auto_now_add=True)
    settled_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=RefundStatus.values),
                name="payments_refund_status_known",
            ),
            models.CheckConstraint(
                condition=~Q(status=RefundStatus.SUCCEEDED) | Q(amount_cents__gt=0),
                name="payments_refund_succeeded_has_amount",
            ),
            models.CheckConstraint(
                condition=~Q(status=RefundStatus.VOIDED) | Q(amount_cents=0),
                name="payments_refund_voided_has_no_amount",
            ),
            models.CheckConstraint(
                condition=Q(status__in=[RefundStatus.PENDING, RefundStatus.DISPUTED], settled_at__isnull=True)
                | (
                    ~Q(status__in=[RefundStatus.PENDING, RefundStatus.DISPUTED]) & Q(settled_at__isnull=False)
                ),
                name="payments_refund_settled_has_time",
            ),
        ]
        indexes = [
            models.Index(
                fields=["created_at"], condition=Q(status=RefundStatus.PENDING), name="payments_refund_open"
            ),
        ]

    def __str__(self) -> str:
        return f"refund of order {self.order_id} ({self.status})"


class DisputeState(models.TextChoices):
    """Where a dispute stands; see `Dispute`."""

    OPEN = "open"
    WON = "won"
    LOST = "lost"
    CLOSED = "closed"


class Dispute(models.Model):
    """A payment that its customer disputes at the bank (a chargeback), as the gateway last reported it.

    `order` is None for a payment that is no order's. `state` is what matters here, `gateway_status` the gateway's own
    word; `closed` is an inquiry that ended without a chargeback. A lost one stays to be done until a person has
    handled it, since nothing at the gateway changes any more.
    """

    State = DisputeState

    dispute_id = models.CharField(max_length=255, unique=True)
    order = models.ForeignKey("orders.Order", null=True, on_delete=models.PROTECT, related_name="+")
    charge_id = models.CharField(max_length=255, blank=True, default="")
    payment_intent_id = models.CharField(max_length=255, blank=True, default="", db_index=True)
    amount_cents = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    reason = models.CharField(max_length=100, blank=True, default="")
    state = models.CharField(max_length=10, choices=State, default=State.OPEN)
    gateway_status = models.CharField(max_length=50)
    due_by = models.DateTimeField(null=True, help_text="Until when evidence can be submitted.")
    opened_at = models.DateTimeField()
    told_at = models.DateTimeField(help_text="Time of the event that set this state.")
    withdrawn_at = models.DateTimeField(null=True, help_text="When the bank took the money.")
    reinstated_at = models.DateTimeField(null=True, help_text="When it gave the money back to us.")
    closed_at = models.DateTimeField(null=True)
    handled_at = models.DateTimeField(null=True, help_text="When a person marked a lost dispute as handled.")
    handled_by = models.CharField(max_length=150, blank=True, default="")

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=DisputeState.values), name="payments_dispute_state_known"
            ),
            models.CheckConstraint(
                condition=Q(state=DisputeState.OPEN, closed_at__isnull=True)
                | (~Q(state=DisputeState.OPEN) & Q(closed_at__isnull=False)),
                name="payments_dispute_closed_has_time",
            ),
        ]
        indexes = [
            models.Index(
                fields=["id"],
                condition=Q(state__in=[DisputeState.OPEN, DisputeState.LOST], handled_at__isnull=True),
                name="payments_dispute_to_do",
            ),
        ]

    def __str__(self) -> str:
        return f"dispute {self.dispute_id} ({self.state})"


class CustomerBill(models.Model):
    """All of one customer's invoices of one month (`YYYY-MM`, UTC), added up once."""

    customer = models.ForeignKey("orders.Customer", on_delete=models.PROTECT, related_name="+")
    billing_period = models.CharField(max_length=7)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["customer", "billing_period"], name="payments_bill_one_per_period"
            ),
            models.CheckConstraint(
                condition=Q(billing_period__regex=r"^[0-9]{4}-(0[1-9]|1[0-2])$"),
                name="payments_bill_period_is_a_month",
            ),
        ]

    def __str__(self) -> str:
        return f"bill of customer {self.customer_id} for {self.billing_period}"


class CustomerBillTotal(models.Model):
    """A bill's sum in one currency: amounts of different currencies are never added."""

    bill = models.ForeignKey(CustomerBill, on_delete=models.CASCADE, related_name="totals")
    currency = models.CharField(max_length=3)
    invoices = models.IntegerField()
    total_cents = models.BigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["bill", "currency"], name="payments_billtotal_one_per_currency"),
        ]

    def __str__(self) -> str:
        return f"{self.total_cents} {self.currency}"


class Finding(models.Model):
    """A difference between the gateway's ledger and the orders, from the run that first saw it until it is
    gone.
    """

    class Kind(models.TextChoices):
        CAPTURED_NOT_COMPLETED = "captured_not_completed", "captured, but the order is still open"
        CAPTURED_NOT_REFUNDED = "captured_not_refunded", "captured, but the order ended without a sale"
        CAPTURED_TWICE = "captured_twice", "captured under an intent that is not the order's"
        CAPTURED_WITHOUT_ORDER = "captured_without_order", "captured for an order that does not exist"
        AMOUNT_DIFFERS = "amount_differs", "captured amount is not the order's total"
        COMPLETED_NOT_CAPTURED = "completed_not_captured", "completed, but the gateway captured nothing"
        REFUND_OVERDUE = "refund_overdue", "refund requested, but not settled"
        REFUND_FAILED = "refund_failed", "the gateway could not give the money back"
        DISPUTED = "disputed", "the customer disputes the payment at the bank"
        DISPUTE_LOST = "dispute_lost", "the bank has taken the money back for good"

    class Action(models.TextChoices):
        PROCESSING_REARMED = "processing_rearmed", "process_order was started again"
        REFUND_REQUESTED = "refund_requested", "the refund was requested"
        NEEDS_A_PERSON = "needs_a_person", "needs a person"
        WAITS_FOR_THE_BANK = "waits_for_the_bank", "waits for the bank's decision"

    kind = models.CharField(max_length=30, choices=Kind)
    subject = models.CharField(
        max_length=255, help_text="The intent's or dispute's id, or order-<id> where there is none."
    )
    order_id = models.BigIntegerField(null=True, blank=True)
    detail = models.CharField(max_length=500)
    action = models.CharField(max_length=30, choices=Action)
    first_seen_at = models.DateTimeField(auto_now_add=True)
    last_seen_at = models.DateTimeField()
    mended_at = models.DateTimeField(null=True, blank=True, help_text="When its action was last taken.")
    resolved_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["kind", "subject"], name="payments_finding_once"),
        ]
        indexes = [
            models.Index(
                fields=["kind"], condition=Q(resolved_at__isnull=True), name="payments_finding_open"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject}"
