"""The whole chaos run for a minute, as a proof that nothing is lost and nothing happens twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.stack.stack import ROOT, SERVERS

pytestmark = [pytest.mark.proof, pytest.mark.alone, pytest.mark.slow]

SEED = 1


def test_a_minute_of_faults_loses_nothing_and_doubles_nothing(
    tmp_path: Path, figure: Callable[[str], None]
) -> None:
    # A process of its own with servers of its own: those of the test run must outlive it.
    inherited = {
        name: value for name, value in os.environ.items() if name not in (*SERVERS, "DJANGO_SETTINGS_MODULE")
    }
    asked = {"MINUTES": "1", "ORDERS": "150", "SEED": str(SEED), "CHAOS_DIRECTORY": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "lab.chaos"],
        cwd=ROOT,
        env=inherited | asked,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, f"{done.stdout[-8000:]}\n{done.stderr[-4000:]}"
    report = json.loads((tmp_path / f"holdfast-redis-seed-{SEED}.json").read_text())
    faults = report["faults"]
    figure(
        f"{report['orders']['ok']} orders, {faults['struck']} faults of {faults['kinds']} kinds,"
        f" {faults['kill_9']} kill -9, {faults['hit_work_in_flight']} hit work in flight, 0 violations"
    )
    assert report["violations"] == 0
    assert set(report["damage"].values()) == {0}
    assert faults["hit_work_in_flight"] >= 15
    assert faults["kill_9"] >= 5
