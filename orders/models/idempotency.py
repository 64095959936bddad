"""The answer that was given for an Idempotency-Key."""

from django.db import models

from orders.models.customers import ApiKey, Customer
from orders.models.order import Order


class IdempotencyRecord(models.Model):
    """What a customer was answered for one `Idempotency-Key`, kept for as long as the order.

    The row is inserted in the transaction that places the order: either both exist or neither does, so that
    no crash leaves a key that is taken and has no order. `answer` is the body of the 202 as it
    was sent: text, because a JSON column would give its keys back in another order.
    """

    # The order's. None only for an answer from before the key belonged to the customer, if another one of this customer
    # has the same key: that answer is found by its API key. The order's own foreign key holds the customer.
    customer = models.ForeignKey(
        Customer, null=True, on_delete=models.CASCADE, db_constraint=False, db_index=False, related_name="+"
    )
    # SET_NULL: a key that was rotated and deleted must not take the answers with it, or a retry would order twice.
    api_key = models.ForeignKey(ApiKey, null=True, on_delete=models.SET_NULL, db_index=False)
    key = models.CharField(max_length=255)
    body_hash = models.CharField(max_length=64)
    order = models.ForeignKey(Order, on_delete=models.CASCADE)
    answer = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["customer", "key"], name="orders_idempotency_one_order_per_customer_and_key"
            ),
            # One API key may place orders for several customers; a key that it used for another is another body.
            models.UniqueConstraint(fields=["api_key", "key"], name="orders_idempotency_one_order_per_key"),
        ]

    def __str__(self) -> str:
        return f"{self.key} → order {self.order_id}"
