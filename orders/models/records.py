"""What is written down beside an order: daily totals, and what the CRM refused."""

from django.db import models


class DailyTotals(models.Model):
    """Orders and revenue of one day (UTC) in one currency. Kept at most once on purpose, so it may miss an
    order that a crash cut off: the exact figures are in the orders themselves (`orders.reports`)."""

    date = models.DateField()
    currency = models.CharField(max_length=3)
    orders = models.BigIntegerField(default=0)
    revenue_cents = models.BigIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["date", "currency"], name="orders_totals_one_per_day")]
        verbose_name_plural = "daily totals"

    def __str__(self) -> str:
        return f"{self.date} {self.currency}: {self.orders}"


class SyncErrorLog(models.Model):
    """Data that another system refused for good. Retrying cannot help, so it is recorded here for a person."""

    entity_type = models.CharField(max_length=50)
    entity_id = models.BigIntegerField()
    error = models.TextField()
    message_id = models.UUIDField(
        null=True, unique=True, help_text="The message that met the refusal; none for a direct call."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["entity_type", "entity_id"], name="orders_syncerror_entity")]

    def __str__(self) -> str:
        return f"{self.entity_type} {self.entity_id}: {self.error[:60]}"
