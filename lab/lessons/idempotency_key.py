"""The wrong way of docs/lessons/idempotency-key.md: the answer is kept after the effect, and somewhere else."""

from __future__ import annotations

from collections.abc import Callable

from django.core.cache import cache
from django.http import HttpRequest, HttpResponse


def answer_once(request: HttpRequest, view: Callable[[HttpRequest], HttpResponse]) -> HttpResponse:
    """A process that is killed between the two has placed the order, and does not know it."""
    key = request.headers["Idempotency-Key"]
    answer: HttpResponse | None = cache.get(key)
    if answer is None:
        answer = view(request)
        cache.set(key, answer, timeout=24 * 3600)
    return answer
