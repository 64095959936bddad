"""The samples that the control room's charts are drawn from; the figures themselves are those of the sources."""

from __future__ import annotations

from django.db import models


class Sample(models.Model):
    """What the sources of `MONITORING_SERIES` said at one tick: one row for each tick, whoever takes it."""

    tick = models.BigIntegerField(
        primary_key=True, help_text="seconds since the epoch, a multiple of samples.EVERY_S"
    )
    figures = models.JSONField(help_text="series -> number; a name that ends in _total never falls")

    class Meta:
        default_permissions = ()
        permissions = (("view_control_room", "Can see the control room"),)

    def __str__(self) -> str:
        return f"sample at {self.tick}"
