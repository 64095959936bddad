"""pytest plugin (``-p lab.spec.results``): keeps how each test that is marked as a proof ended, for `make spec`."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

#: Test -> how it ended last, and on which day. A run of a part of the suite changes only what it ran.
RESULTS = Path("var") / "spec-results.json"
MARKERS = {"promise", "described"}
_WORST_FIRST = ("failed", "skipped", "passed")


class _Results:
    def __init__(self) -> None:
        self._ended: dict[str, str] = {}

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Of a test with parameters, or with a fixture that fails, the worst outcome counts."""
        if (report.when != "call" and report.passed) or not MARKERS & report.keywords.keys():
            return
        test = report.nodeid.partition("[")[0]
        outcome = "failed" if report.failed else str(report.outcome)
        known = self._ended.get(test, outcome)
        self._ended[test] = min(outcome, known, key=_WORST_FIRST.index)

    @pytest.hookimpl
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not self._ended:
            return
        path, day = session.config.rootpath / RESULTS, datetime.now(UTC).date().isoformat()
        known = json.loads(path.read_text()) if path.exists() else {}
        known |= {test: [outcome, day] for test, outcome in self._ended.items()}
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(known, indent=0, sort_keys=True))


def pytest_configure(config: pytest.Config) -> None:
    """Of a run that pytest-xdist shares out, the process that hears of every test keeps the results."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        config.pluginmanager.register(_Results(), "spec-results")
