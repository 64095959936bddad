"""The wrong way of docs/lessons/ordered-messages.md: the order of the queue is to be the order of the runs."""

from __future__ import annotations

from collections.abc import Sequence

from celery import Task

import outbox


def tell(deliver: Task, events: Sequence[str]) -> None:
    """Workers take them side by side, and one that is retried comes after those behind it."""
    for event in events:
        outbox.enqueue(deliver.s(event))
