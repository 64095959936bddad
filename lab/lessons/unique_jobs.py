"""The wrong way of docs/lessons/unique-jobs.md: the claim is in Redis, the job in the database."""

from __future__ import annotations

from redis import Redis

import outbox
from orders.tasks import generate_report


def request_report(redis: Redis, report_id: int) -> bool:
    """When the caller rolls back, the key stays, and the job is refused although it does not exist."""
    if not redis.set(f"report:{report_id}", "1", nx=True, ex=3600):
        return False
    outbox.enqueue(generate_report.s(report_id))
    return True
