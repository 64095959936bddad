"""Events that providers sent."""

from django.db import models


class IncomingEvent(models.Model):
    """An event that a provider sent: verified, stored once, applied later by what `INCOMING_ON_EVENT` names."""

    provider = models.CharField(max_length=50, default="gateway")
    event_id = models.CharField(max_length=255)
    event_type = models.CharField(max_length=255)
    payload = models.JSONField()
    received_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        # The table that the app `webhooks` made in an earlier release.
        db_table = "webhooks_incomingevent"
        constraints = [
            models.UniqueConstraint(
                fields=["provider", "event_id"], name="webhooks_one_row_per_incoming_event"
            )
        ]

    def __str__(self) -> str:
        return f"{self.event_type} {self.event_id} from {self.provider}"
