"""The wrong way of docs/lessons/rate-limit.md: each process counts by itself."""

from __future__ import annotations


class Limiter:
    """Allows `per_second` calls in each second of the clock, to this process alone."""

    def __init__(self, per_second: int) -> None:
        self.per_second, self.second, self.used = per_second, 0, 0

    def allows(self, now: float) -> bool:
        if int(now) != self.second:
            self.second, self.used = int(now), 0
        self.used += 1
        return self.used <= self.per_second
