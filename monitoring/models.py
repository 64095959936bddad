"""What the monitoring itself keeps: samples for charts, and which alerts fire. The figures are those of the sources."""

from __future__ import annotations

from collections.abc import Collection

from django.db import models


class Sample(models.Model):
    """What the sources of `MONITORING_SERIES` said at one tick: one row for each tick, whichever process takes it."""

    tick = models.BigIntegerField(
        primary_key=True, help_text="seconds since the epoch, a multiple of samples.EVERY_S"
    )
    figures = models.JSONField(help_text="series -> number; a name that ends in _total never falls")

    class Meta:
        default_permissions = ()
        permissions = (("view_control_room", "Can see the control room"),)

    def __str__(self) -> str:
        return f"sample at {self.tick}"


class FiringAlert(models.Model):
    """A rule that fires, or has ended and somebody is still to be told: one row for each rule at the most."""

    name = models.TextField(primary_key=True)
    text = models.TextField()
    value = models.FloatField()
    threshold = models.FloatField()
    about = models.JSONField(
        default=list,
        db_default=[],
        help_text="the queues, tasks, ... for which it fires, of a rule that names them",
    )
    since = models.DateTimeField()
    seen_at = models.DateTimeField(help_text="when it was last seen firing, or could not be judged")
    resolved_at = models.DateTimeField(null=True)
    told = models.JSONField(
        default=dict,
        help_text="channel -> {state: firing or resolved, at: seconds since the epoch, about: what it has named} of its messages",
    )

    class Meta:
        default_permissions = ()

    def is_about_others(self, about: Collection[str]) -> bool:
        """Whether what fires now shares nothing with what fired before: the rule goes on, and the trouble is another."""
        return bool(about) and bool(self.about) and set(self.about).isdisjoint(about)

    def __str__(self) -> str:
        return f"{self.name} since {self.since}"
