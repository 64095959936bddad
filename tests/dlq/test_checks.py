"""Half a wiring with the journal is found at start, with a line that says what to write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.apps import apps
from django.core.checks import CheckMessage, run_checks
from pytest_django import Settings

from config.celery import app
from dlq import checks
from outbox import checks as outbox_checks

DLQ = ("DLQ_JOURNAL", "DLQ_PUBLISHER", "DLQ_DISCARDER", "DLQ_GENERATION_HEADER")
OUTBOX = ("OUTBOX_ON_DEAD", "OUTBOX_ON_RESOLVED", "OUTBOX_ON_CANCELLED", "OUTBOX_REPLAY_HEADER")


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


@pytest.mark.parametrize("name", [*DLQ, *OUTBOX])
@pytest.mark.parametrize("value", [None, ""])
def test_each_setting_that_is_missing_alone_is_an_error_that_names_it(
    settings: Settings, name: str, value: str | None
) -> None:
    setattr(settings, name, value)
    (line,) = found()
    assert line.startswith(("dlq.E001", "outbox.E008"))
    assert f"{name} is not set, but" in line
    assert "Set it" in line
    assert [line] == checks.serious() or line in outbox_checks.serious()


@pytest.mark.parametrize("name", [*DLQ, *OUTBOX])
def test_each_setting_that_is_set_alone_is_an_error_that_names_the_others(
    settings: Settings, name: str
) -> None:
    for other in {*DLQ, *OUTBOX} - {name}:
        delattr(settings, other)
    assert {line.split()[1] for line in found()} == {*DLQ, *OUTBOX} - {name}


@pytest.mark.parametrize(
    ("label", "mine", "check"),
    [("outbox", DLQ, checks.check_wiring), ("dlq", OUTBOX, outbox_checks.check_desk)],
    ids=["dead letters without the outbox", "the outbox without dead letters"],
)
def test_alone_either_needs_no_wiring_and_half_of_one_is_an_error(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    label: str,
    mine: tuple[str, ...],
    check: Callable[[], list[CheckMessage]],
) -> None:
    with without(label, monkeypatch):
        assert check() == []
        for name in mine[1:]:
            delattr(settings, name)
        assert {problem.msg.split()[0] for problem in check()} == {*mine[1:]}
        assert all(f"but {mine[0]} is" in problem.msg for problem in check())
        delattr(settings, mine[0])
        assert check() == []


@pytest.mark.parametrize(
    "name",
    [
        *("DLQ_JOURNAL", "DLQ_PUBLISHER", "DLQ_DISCARDER", "DLQ_NOT_NOW"),
        *("OUTBOX_ON_DEAD", "OUTBOX_ON_RESOLVED", "OUTBOX_ON_CANCELLED", "OUTBOX_MASK"),
    ],
)
@pytest.mark.parametrize(
    "path", ["config.wiring.no_such", "no_such.module.f", "nodots", "config.settings.DEBUG"]
)
def test_a_path_that_leads_to_nothing_that_can_be_called_is_an_error(
    settings: Settings, name: str, path: str
) -> None:
    setattr(settings, name, path)
    (line,) = found()
    assert f"{name} = {path!r} cannot be used" in line


def test_a_handler_that_cannot_be_imported_is_named_with_its_queue(settings: Settings) -> None:
    settings.DLQ_HANDLERS = {"orders": "orders.services.OrderService.gone"}
    (line,) = found()
    assert line.startswith(
        "dlq.E003: DLQ_HANDLERS['orders'] = 'orders.services.OrderService.gone' cannot be used"
    )


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("DLQ_GENERATION_HEADER", "generation", "DLQ_GENERATION_HEADER must be 'outbox.generation'"),
        ("OUTBOX_REPLAY_HEADER", "replay", "OUTBOX_REPLAY_HEADER must be 'dlq-replay'"),
    ],
)
def test_a_header_that_the_other_side_does_not_write_is_an_error(
    settings: Settings, name: str, value: str, says: str
) -> None:
    setattr(settings, name, value)
    (line,) = found()
    assert says in line


@pytest.mark.parametrize(
    ("owner", "name", "missing"),
    [
        (app.conf, "worker_consumer", "dlq.worker.consumer:Consumer"),
        (app.Task, "Request", "dlq.worker.request:Request"),
    ],
    ids=["consumer", "request"],
)
def test_one_of_the_two_classes_that_see_a_message_end_is_not_enough(
    owner: Any, name: str, missing: str
) -> None:
    ours = getattr(owner, name)
    # Not monkeypatch, which cannot put Celery's settings back.
    setattr(owner, name, f"celery.{missing.removeprefix('dlq.')}")
    try:
        (line,) = checks.serious(runs_tasks=True)
    finally:
        setattr(owner, name, ours)
    assert f"{name} is not {missing}" in line
