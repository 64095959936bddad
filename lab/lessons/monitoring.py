"""The wrong way of docs/lessons/monitoring.md: each process counts by itself."""

from __future__ import annotations


class Figures:
    """How many jobs wait, as this process has seen it."""

    def __init__(self) -> None:
        self.waiting = 0

    def enqueued(self) -> None:
        self.waiting += 1

    def done(self) -> None:
        self.waiting -= 1
