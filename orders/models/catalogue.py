"""What is sold: units on the shelf, and a price in each currency."""

from django.db import models
from django.db.models import F, Q


class Product(models.Model):
    """A SKU. Each unit is in exactly one place: `stock` (may be ordered), `reserved` (belongs to an order) or
    `shipped`. Units only move between the three (`orders.stock`), so that their sum is what was
    bought.
    """

    sku = models.CharField(max_length=64, unique=True)
    name = models.CharField(max_length=200)
    stock = models.BigIntegerField(default=0)
    reserved = models.BigIntegerField(default=0)
    shipped = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(stock__gte=0, reserved__gte=0, shipped__gte=0),
                name="orders_product_units_not_negative",
            )
        ]

    def __str__(self) -> str:
        return self.sku


class Price(models.Model):
    """What one unit costs, in minor units (cents) of `currency` (ISO 4217, lower case)."""

    product = models.ForeignKey(Product, on_delete=models.CASCADE, related_name="prices")
    currency = models.CharField(max_length=3)
    amount_cents = models.BigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["product", "currency"], name="orders_price_one_per_currency"),
            models.CheckConstraint(condition=Q(amount_cents__gt=0), name="orders_price_positive"),
            models.CheckConstraint(
                condition=Q(currency__regex=r"^[a-z]{3}$"), name="orders_price_currency_code"
            ),
        ]
        ordering = [F("currency").asc()]

    def __str__(self) -> str:
        return f"{self.amount_cents} {self.currency}"
