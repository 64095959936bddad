"""The answer that was given for an Idempotency-Key."""

from django.db import models
from django.db.models import Q


class Record(models.Model):
    """What was answered for one `Idempotency-Key`, inserted in the transaction of the request's effect.

    Either both exist or neither does, so that no crash leaves a key that is taken and has no effect. `body` is the answer as
    it was sent: text, because a JSON column would give its keys back in another order.
    """

    scope = models.CharField(max_length=255, help_text="Whose key it is: two scopes may use the same key.")
    client = models.CharField(
        max_length=255,
        blank=True,
        default="",
        help_text="The sender, if it may act in several scopes: a key that it used in one scope counts as used in all.",
    )
    key = models.CharField(max_length=255)
    body_hash = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField()
    headers = models.JSONField(default=dict)
    body = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["scope", "key"], name="idempotency_one_answer_per_scope_and_key"),
            models.UniqueConstraint(
                fields=["client", "key"],
                condition=~Q(client=""),
                name="idempotency_one_answer_per_client_and_key",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.key} of {self.scope}: {self.status}"
