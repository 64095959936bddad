"""The filters of the desk's list, which cost the same however many closed dead letters there are.

Django's own ask the whole table, once for each filter, which values there are.
"""

from __future__ import annotations

from typing import Any

from celery import current_app
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from dlq.masking import masked_text
from dlq.models import DeadLetter, State

#: A dead letter in one of these is not closed.
UNRESOLVED = (State.OPEN, State.REPLAYING)


class StateFilter(admin.ChoicesFieldListFilter):
    """By state; what is not closed is found by the indexes of what is not closed."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if request.GET.get(self.lookup_kwarg) in UNRESOLVED:
            queryset = queryset.filter(closed_at=None)
        found: QuerySet[Any] = super().queryset(request, queryset)  # type: ignore[assignment]
        return found


class _Column(admin.SimpleListFilter):
    """By a column, with the values that there may be, and the one that is chosen."""

    def known(self, request: HttpRequest) -> set[str]:
        raise NotImplementedError

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        values = self.known(request)
        if (chosen := request.GET.get(self.parameter_name or "")) is not None:
            values |= {chosen}
        return [(value, value or "(none)") for value in sorted(values)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        chosen = self.value()
        return queryset if chosen is None else queryset.filter(**{str(self.parameter_name): chosen})


class QueueFilter(_Column):
    title = parameter_name = "queue"

    def known(self, request: HttpRequest) -> set[str]:
        return set(current_app.amqp.queues)


class TaskFilter(_Column):
    title = parameter_name = "task"

    def known(self, request: HttpRequest) -> set[str]:
        # Not a name with a secret, which a link to it would show: its group leads to it.
        return {task for task, _ in _unresolved(request) if masked_text(task) == task}


class ExceptionFilter(_Column):
    title = parameter_name = "exception"

    def known(self, request: HttpRequest) -> set[str]:
        return {exception for _, exception in _unresolved(request)}


def _unresolved(request: HttpRequest) -> list[tuple[str, str]]:
    """Task and exception of what is not closed, in one statement for both filters."""
    found: list[tuple[str, str]] | None = getattr(request, "_dlq_unresolved", None)
    if found is None:
        unresolved = DeadLetter.objects.filter(closed_at=None).order_by()
        found = list(unresolved.values_list("task", "exception").distinct())
        request._dlq_unresolved = found  # type: ignore[attr-defined]
    return found
