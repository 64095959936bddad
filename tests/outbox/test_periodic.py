"""What the pattern folders need done now and then is in Celery's schedule, which every beat reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import dlq.periodic
import outbox
import outbox.periodic


@pytest.fixture
def made() -> Iterator[Any]:
    """An application of a project's own."""
    app = outbox.Celery("lifted", set_as_current=False)
    yield app
    app.close()


def tasks(app: Any) -> dict[str, Any]:
    return {entry["task"]: entry["schedule"] for entry in app.conf.beat_schedule.values()}


@pytest.mark.parametrize("configured", [False, True])
def test_each_is_added_whether_celery_is_configured_before_or_after(made: Any, configured: bool) -> None:
    if configured:
        assert made.conf.beat_schedule == {}
    outbox.periodic.connect(made)
    dlq.periodic.connect(made)
    assert tasks(made) == {"outbox.retention.prune": 600.0, "dlq.unanswered.reopen": 600.0}


def test_an_entry_of_the_project_stays_as_it_is(made: Any) -> None:
    made.conf.beat_schedule = {
        "nightly": {"task": "outbox.retention.prune", "schedule": 86_400.0},
        "own": {"task": "shop.tasks.own", "schedule": 1.0},
    }
    outbox.periodic.connect(made)
    assert tasks(made) == {"outbox.retention.prune": 86_400.0, "shop.tasks.own": 1.0}


def test_what_rabbitmq_gives_up_is_collected_there_alone(made: Any) -> None:
    made.conf.broker_url = "amqp://127.0.0.1//"
    dlq.periodic.connect(made)
    assert tasks(made) == {"dlq.unanswered.reopen": 600.0, "dlq.undeliverable.collect": 60.0}
