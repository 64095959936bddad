from typing import Any

import pytest

from resilience import circuits
from resilience.connection import get_redis
from tests.monitoring import figures


@pytest.fixture
def outbox_figures(monkeypatch) -> dict[str, Any]:
    queue = {
        "pending": 3,
        "scheduled": 7,
        "blocked": 2,
        "published": 5,
        "running": 4,
        "oldest_pending_age_s": 12.5,
    }
    empty = {
        "pending": 0,
        "scheduled": 0,
        "blocked": 0,
        "published": 0,
        "running": 0,
        "oldest_pending_age_s": 0.0,
    }
    figures_of_outbox = {
        "queues": {"critical": queue, "low": empty},
        "done_last_minute": {"critical": 570, "low": 30},
        "failed_last_minute": {"critical": 30},
        "avg_latency_ms": {"critical": 200.0, "low": 2200.0},
        "totals": {
            "critical": {"enqueued": 900, "done": 600, "latency_s": 120.0, "buckets": {0.1: 500, 5.0: 590}}
        },
        "skipped": {"duplicate": 9, "missing": 2},
        "retries": 13,
        "workers": {"count": 3, "concurrency": 9, "active": 4, "memory_bytes": 4096},
        "relays": {"expected": True, "count": 2, "lately": 2},
        "beats": {"expected": True, "count": 1, "lately": 1},
        "tasks": {"orders.tasks.sync_to_crm": {"retrying": 4, "failed": 3, "done": 40}},
    }
    monkeypatch.setattr(figures, "OUTBOX", figures_of_outbox)
    return figures_of_outbox


@pytest.fixture
def dlq_figures(monkeypatch) -> dict[str, Any]:
    figures_of_dlq = {
        "open": 2,
        "oldest_age_s": 3600.0,
        "by_queue": [
            {"queue": "critical", "task": "orders.tasks.process_order", "state": "open", "count": 2}
        ],
        "dead_lettered": [
            {
                "queue": "critical",
                "task": "orders.tasks.process_order",
                "exception": "ValueError",
                "count": 4,
            },
            {"queue": "low", "task": "orders.tasks.process_order", "exception": "ValueError", "count": 2},
        ],
        "replays": {"sent": 4, "succeeded": 3, "failed": 1},
    }
    monkeypatch.setattr(figures, "DLQ", figures_of_dlq)
    return figures_of_dlq


@pytest.fixture
def findings_figures(monkeypatch) -> dict[str, Any]:
    figures_of_findings = {
        "open": {"captured_twice": 0, "refund_overdue": 3},
        "for_a_person": {"captured_twice": 0, "refund_overdue": 0},
    }
    monkeypatch.setattr(figures, "FINDINGS", figures_of_findings)
    return figures_of_findings


@pytest.fixture(autouse=True)
def no_open_circuits() -> None:
    """A worker of an earlier test said so of its own, and it counts until a minute after that worker."""
    get_redis().delete(circuits.KEY)


@pytest.fixture(autouse=True)
def sources(settings, outbox_figures, dlq_figures, findings_figures) -> None:
    settings.MONITORING_SOURCES = {
        "outbox": "tests.monitoring.figures.outbox",
        "dlq": "tests.monitoring.figures.dlq",
        "findings": "tests.monitoring.figures.findings",
        "circuits": "tests.monitoring.figures.circuits",
        "orders": "tests.monitoring.figures.orders",
        "webhooks": "tests.monitoring.figures.webhooks",
    }
    settings.MONITORING_QUEUES = ("critical", "high", "default", "low")
