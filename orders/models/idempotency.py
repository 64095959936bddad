"""The answer that was given for an Idempotency-Key."""

from django.db import models

from orders.models.customers import ApiKey
from orders.models.order import Order


class IdempotencyRecord(models.Model):
    """What an API key was answered for one `Idempotency-Key`, kept for as long as the order.

    The row is inserted in the transaction that places the order: either both exist or neither does, so that
    no crash leaves a key that is taken and has no order. `answer` is the body of the 202 as it
    was sent: text, because a JSON column would give its keys back in another order.
    """

    api_key = models.ForeignKey(ApiKey, on_delete=models.CASCADE)
    key = models.CharField(max_length=255)
    body_hash = models.CharField(max_length=64)
    order = models.ForeignKey(Order, on_delete=models.CASCADE)
    answer = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["api_key", "key"], name="orders_idempotency_one_order_per_key")
        ]

    def __str__(self) -> str:
        return f"{self.key} → order {self.order_id}"
