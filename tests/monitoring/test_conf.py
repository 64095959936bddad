"""monitoring/ in a project that sets nothing: no setting is required, and pages and metrics answer without a source."""

from typing import Any

import pytest
from django.conf import settings as configured
from django.test import Client

from monitoring.alerts import configured as thresholds
from monitoring.alerts import evaluate
from monitoring.snapshot import QueueMonitor
from monitoring.thresholds import Thresholds


@pytest.fixture(autouse=True)
def nothing_is_set(settings: Any) -> None:
    for name in dir(configured):
        if name.startswith("MONITORING_"):
            delattr(settings, name)


def test_without_a_source_the_snapshot_is_empty_and_nothing_fires() -> None:
    snapshot = QueueMonitor().snapshot()
    assert (dict(snapshot.queues), snapshot.depth, snapshot.dead_letter_count) == ({}, 0, 0)
    assert evaluate(snapshot) == []
    assert thresholds() == Thresholds()


def test_without_a_source_the_metrics_answer_and_claim_no_figure(client: Client) -> None:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    assert [line for line in lines if not line.startswith("holdfast_http_responses")] == []


@pytest.mark.django_db(transaction=True)
def test_the_probes_ask_database_migrations_and_broker(client: Client) -> None:
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").json() == {"status": "ready", "checks": ["broker", "database", "migrations"]}
