"""No table: the permission to use the controls needs a model to belong to."""

from __future__ import annotations

from django.db import models


class Controls(models.Model):
    """What breaks things from the control room, see `lab.controls`."""

    class Meta:
        managed = False
        default_permissions = ()
        permissions = (("use_controls", "Can break things in the lab"),)

    def __str__(self) -> str:
        return "controls"
