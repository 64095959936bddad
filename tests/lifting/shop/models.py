from django.db import models


class Effect(models.Model):
    """What a task did: a row each time."""

    name = models.CharField(max_length=200)

    def __str__(self) -> str:
        return self.name
