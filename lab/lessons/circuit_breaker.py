"""The wrong way of docs/lessons/circuit-breaker.md: every call tries, and tries again."""

from __future__ import annotations

from collections.abc import Callable


def notify(call: Callable[[], object], attempts: int = 3) -> object:
    """Against a service that is down each job spends all its attempts, with a timeout for each."""
    for attempt in range(1, attempts + 1):
        try:
            return call()
        except ConnectionError:
            if attempt == attempts:
                raise
    return None
