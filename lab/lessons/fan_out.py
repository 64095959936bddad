"""The wrong way of docs/lessons/fan-out.md: one job does all that follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def after_completion(order_id: int, steps: Sequence[Callable[[int], object]]) -> None:
    """When a step fails, the retry of the job repeats all steps before it, and those behind it wait."""
    for step in steps:
        step(order_id)
