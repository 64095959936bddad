"""Half a wiring with the journal is found at start, with a line that says what to write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery import Celery
from celery.utils.imports import symbol_by_name
from django.apps import apps
from django.core.checks import CheckMessage, run_checks
from pytest_django import Settings

import dlq
import outbox
from config.celery import app
from dlq import checks, outbox_hooks
from dlq.worker.consumer import Consumer
from dlq.worker.request import Request
from outbox import checks as outbox_checks
from outbox import dlq_hooks
from outbox.worker.consumer import Consumer as OutboxConsumer
from tests.support.celery_settings import celery_settings


def found(ids: str = "dlq.E outbox.E008 outbox.E009") -> list[str]:
    """What `manage.py check` says."""
    return [f"{p.id}: {p.msg}" for p in run_checks() if str(p.id).startswith(tuple(ids.split()))]


@contextmanager
def without(label: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(apps, "app_configs", {k: v for k, v in apps.app_configs.items() if k != label})
        yield


def test_the_wiring_as_it_is_passes() -> None:
    assert found() == []
    assert checks.serious(runs_tasks=True) == []


@pytest.mark.promise(
    "P5",
    "`dlq/` is wired to a journal only in part",
    "a check error, and no process starts",
    celery="nothing",
)
@pytest.mark.parametrize("off", [None, ""])
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("DLQ_JOURNAL", "outbox.E008: OUTBOX_DEAD_LETTERS = 'dlq', but its journal is None"),
        ("OUTBOX_DEAD_LETTERS", "dlq.E001: DLQ_JOURNAL = 'outbox', but it keeps its dead letters in None"),
    ],
)
def test_one_side_switched_off_by_hand_is_an_error(
    settings: Settings, name: str, says: str, off: str | None
) -> None:
    """The error names both settings."""
    setattr(settings, name, off)
    (line,) = found()
    assert line.startswith(says)
    assert {"OUTBOX_DEAD_LETTERS", "DLQ_JOURNAL"} <= {word.strip("(),:") for word in line.split()}
    assert [line] == checks.serious() or line in outbox_checks.serious()


def test_both_sides_switched_off_by_hand_are_no_error(
    settings: Settings,
) -> None:
    """They are two apps that do not know each other."""
    settings.DLQ_JOURNAL = settings.OUTBOX_DEAD_LETTERS = None
    assert found() == []


@pytest.mark.parametrize(
    ("label", "check", "theirs"),
    [
        ("outbox", checks.check_journal, "DLQ_JOURNAL"),
        ("dlq", outbox_checks.check_dead_letters, "OUTBOX_DEAD_LETTERS"),
    ],
    ids=["dead letters without the outbox", "the outbox without dead letters"],
)
def test_either_app_alone_needs_no_wiring(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    label: str,
    check: Callable[[], list[CheckMessage]],
    theirs: str,
) -> None:
    """A setting that names an app which is not installed is an error."""
    with without(label, monkeypatch):
        assert check() == []
        setattr(settings, theirs, label)
        assert [problem.msg for problem in check()] == [f"{theirs} = {label!r} is not in INSTALLED_APPS"]


@pytest.mark.parametrize(
    ("name", "module"), [("DLQ_JOURNAL", "dlq_hooks"), ("OUTBOX_DEAD_LETTERS", "outbox_hooks")]
)
def test_an_app_without_the_module_the_other_needs_is_an_error(
    settings: Settings, name: str, module: str
) -> None:
    setattr(settings, name, "monitoring")
    assert any(
        line.endswith(f"{name} = 'monitoring' cannot be used, monitoring.{module}: ModuleNotFoundError:"
                      f" No module named 'monitoring.{module}'")
        for line in found()
    )  # fmt: skip


@pytest.mark.parametrize(("module", "name"), [(dlq_hooks, "adopt"), (outbox_hooks, "on_resolved")])
def test_a_module_without_something_that_the_other_side_needs_is_an_error(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    monkeypatch.delattr(module, name)
    (line,) = found()
    assert line.endswith(f"{module.__name__} has no {name}")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("DLQ_JOURNAL", 1, "the name of an app, or None, not 1"),
        ("DLQ_HANDLERS", ["orders"], "a dict of a queue's name and a dotted path"),
        ("DLQ_MAX_LOST_RUNS", "3", "a whole number of at least 1, not '3'"),
        ("DLQ_MAX_MESSAGE_BYTES", 0, "a whole number of at least 1, not 0"),
        ("DLQ_UNDELIVERABLE", None, "the name of a queue, not None"),
        ("DLQ_OPERATIONS_RETENTION", -1, "a number of seconds from 0 to 3153600000, not -1"),
    ],
)
def test_a_setting_of_the_wrong_kind_is_an_error_that_names_it(
    settings: Settings, name: str, value: Any, says: str
) -> None:
    setattr(settings, name, value)
    assert f"dlq.E005: {name} must be {says}" in "\n".join(found())


def test_a_handler_that_cannot_be_imported_is_named_with_its_queue(settings: Settings) -> None:
    settings.DLQ_HANDLERS = {"orders": "orders.services.OrderService.gone"}
    (line,) = found()
    assert line.startswith(
        "dlq.E003: DLQ_HANDLERS['orders'] = 'orders.services.OrderService.gone' cannot be used"
    )


def test_a_consumer_that_does_not_see_a_message_end_is_refused() -> None:
    with celery_settings(app, worker_consumer="celery.worker.consumer:Consumer"):
        (line,) = checks.serious(runs_tasks=True)
    assert "worker_consumer is not dlq.worker.consumer:Consumer" in line


def test_a_request_that_does_not_see_a_message_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.Task, "Request", "celery.worker.request:Request")
    (line,) = checks.serious(runs_tasks=True)
    assert "Request is not dlq.worker.request:Request" in line


def test_one_call_connects_a_plain_application_to_the_dead_letters(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Celery("plain", set_as_current=False)
    monkeypatch.setattr(checks, "current_app", plain)

    @plain.task
    def task() -> None: ...

    assert symbol_by_name(task.Request) is not Request
    settings.OUTBOX_DEAD_LETTERS = settings.DLQ_JOURNAL = None
    assert [problem.id for problem in checks.check_connected()] == ["dlq.W001"]
    dlq.connect(plain)
    assert checks.check_connected() == []
    assert symbol_by_name(task.Request) is Request
    assert symbol_by_name(plain.conf.worker_consumer) is Consumer
    assert checks.check_worker() == []


def test_an_application_of_the_outboxs_is_connected_already() -> None:
    """A project that had dlq/ first keeps the call when outbox/ comes."""
    both = outbox.Celery("both", set_as_current=False)
    dlq.connect(both)
    assert symbol_by_name(both.conf.worker_consumer) is OutboxConsumer
    assert issubclass(OutboxConsumer, Consumer)
    assert symbol_by_name(both.Task.Request) is Request
