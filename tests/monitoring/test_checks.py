"""A wrong setting of monitoring/ is found at start."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_django import Settings

from monitoring.checks import check_paths, check_probes


def test_the_settings_as_they_are_pass() -> None:
    assert check_paths() == check_probes() == []


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("SOURCES", {"outbox": "outbox.stats.statistics"}, "'outbox.stats.statistics' cannot be imported"),
        ("SOURCES", {"outbx": "outbox.stats.stats"}, "there is no source outbx; the sources are outbox, dlq"),
        ("SERIES", {"outbox": "gone.series"}, "'gone.series' cannot be imported"),
        ("TABLES", {"Workers": "gone.workers"}, "'gone.workers' cannot be imported"),
        ("INVARIANTS", ["gone.invariants"], "'gone.invariants' cannot be imported"),
        ("PANELS", ["gone.panel"], "'gone.panel' cannot be imported"),
        ("READY_CHECKS", {"database": "gone.check"}, "'gone.check' cannot be imported"),
    ],
)
def test_what_cannot_be_used_is_an_error_that_names_its_setting(
    settings: Settings, name: str, value: Any, says: str
) -> None:
    setattr(settings, f"MONITORING_{name}", value)
    (problem,) = check_paths()
    assert problem.is_serious()
    assert problem.msg.startswith(f"MONITORING_{name}: {says}")


def test_probes_that_are_not_first_are_a_warning(settings: Settings) -> None:
    settings.MIDDLEWARE = settings.MIDDLEWARE[1:]
    assert [problem.id for problem in check_probes()] == ["monitoring.W001"]
