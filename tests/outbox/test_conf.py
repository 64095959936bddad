"""No setting is required, and one of the wrong kind is named at start."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery
from django.conf import settings as configured
from django.core.exceptions import ImproperlyConfigured
from kombu import Queue
from pytest_django import Settings

import outbox.testing
from config.celery import app
from outbox import conf
from outbox.checks import check_settings
from outbox.retention import prune
from tests.support import tasks

OWN = (
    *("OUTBOX_QUEUES", "OUTBOX_EVENTS", "OUTBOX_FOREIGN_TASKS", "OUTBOX_DEPTH_LIMIT", "OUTBOX_BATCH"),
    "OUTBOX_LINKS",
    *("OUTBOX_RETENTION", "OUTBOX_MARGIN", "OUTBOX_WORKER_TIMEOUT", "OUTBOX_SKEW_GRACE"),
    *("OUTBOX_CONSUMER_TIMEOUT", "DATABASE_CONNECTIONS", "RETRY_SCALE", "RETRY_MINIMUM", "OUTBOX_TRACING"),
)


@pytest.fixture
def unset(settings: Settings) -> Settings:
    for name in OWN:
        if hasattr(configured, name):
            delattr(settings, name)
    return settings


def test_every_setting_of_the_outbox_has_a_default(unset: Settings) -> None:
    assert conf.queues() == ("critical", "high", "default", "low")  # of CELERY_TASK_QUEUES
    assert [read() for read in conf.ALL[1:]] == [
        *({}, (), "dlq", {}, 2_000, 500, 604_800.0, 5.0, 6.0, 3_600.0, 1_800.0, None, 1.0, 0, False)
    ]
    assert check_settings() == []


@pytest.fixture
def plain(unset: Settings, monkeypatch: pytest.MonkeyPatch) -> Celery:
    """An application of which nothing is configured, with names of its own for Celery's settings."""
    other = Celery("other", set_as_current=False)
    monkeypatch.setattr(conf, "current_app", other)
    return other


def test_without_declared_queues_there_is_celerys_default_queue(plain: Celery) -> None:
    assert conf.queues() == ("celery",)
    plain.conf.task_queues = [Queue("a"), Queue("b")]
    assert conf.queues() == ("a", "b")


@pytest.mark.django_db
def test_a_message_goes_to_celerys_default_queue_where_none_is_named(plain: Celery) -> None:
    plain.conf.task_default_queue = "mine"
    outbox.enqueue(tasks.note.s("a"))
    outbox.enqueue(prune.s())
    assert {message.queue for message in outbox.testing.staged()} == {"mine"}


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("OUTBOX_QUEUES", "default", "a list of names, not 'default'"),
        ("OUTBOX_EVENTS", ["order.placed"], "a dict of an event's name and a list of task names"),
        ("OUTBOX_EVENTS", {"order.placed": "orders.tasks.process"}, "a list of names"),
        ("OUTBOX_FOREIGN_TASKS", "orders.tasks.process", "a list of names"),
        ("OUTBOX_BATCH", "500", "a whole number of at least 1, not '500'"),
        ("OUTBOX_BATCH", 0, "a whole number of at least 1, not 0"),
        ("OUTBOX_DEPTH_LIMIT", True, "a whole number of at least 1, not True"),
        ("OUTBOX_RETENTION", None, "a number of at least 0, not None"),
        ("OUTBOX_MARGIN", float("nan"), "a number of at least 0, not nan"),
        ("OUTBOX_SKEW_GRACE", -1, "a number of at least 0, not -1"),
        ("DATABASE_CONNECTIONS", "80", "a whole number of at least 1, not '80'"),
        ("OUTBOX_TRACING", "0", "True or False, not '0'"),
    ],
)
def test_a_setting_of_the_wrong_kind_is_a_check_error(
    settings: Settings, name: str, value: Any, says: str
) -> None:
    """The error names the setting."""
    setattr(settings, name, value)
    (problem,) = check_settings()
    assert problem.is_serious()
    assert problem.msg.startswith(name)
    assert says in problem.msg
    with pytest.raises(ImproperlyConfigured):
        [read() for read in conf.ALL]


def test_checks_call_celerys_settings_as_the_reader_does(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CELERY_TASK_ACKS_LATE = False
    assert [problem.msg.split()[0] for problem in check_settings()] == ["CELERY_TASK_ACKS_LATE"]
    monkeypatch.setattr(app, "namespace", None)
    assert [problem.msg.split()[0] for problem in check_settings()] == ["task_acks_late"]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("worker_cancel_long_running_tasks_on_connection_loss", True, "_CONNECTION_LOSS must be off"),
        ("task_acks_on_failure_or_timeout", False, "CELERY_TASK_ACKS_ON_FAILURE_OR_TIMEOUT must be on"),
        ("accept_content", ["json", "pickle"], "CELERY_ACCEPT_CONTENT must be json, not pickle"),
        ("worker_prefetch_multiplier", 0, "times CELERY_WORKER_PREFETCH_MULTIPLIER (inf)"),
    ],
)
def test_a_value_of_celerys_that_breaks_a_promise_is_refused(
    settings: Settings, name: str, value: Any, says: str
) -> None:
    setattr(settings, f"CELERY_{name.upper()}", value)
    (problem,) = check_settings()
    assert problem.is_serious()
    assert says in problem.msg
