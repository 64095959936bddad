"""The wrong way of docs/lessons/priority-tiers.md: priorities inside of one queue."""

from __future__ import annotations

from collections.abc import Callable
from queue import PriorityQueue

Job = tuple[int, Callable[[], object]]


def worker(jobs: PriorityQueue[Job]) -> None:
    """The most urgent job is next, but a job that runs is not interrupted for it."""
    while not jobs.empty():
        _, job = jobs.get()
        job()
