"""Killed, cut off, overtaken or frozen at any I/O: no promise breaks; and the checks that say so can fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.stack.stack import ROOT

pytestmark = [pytest.mark.proof, pytest.mark.alone]


def run(module: str, report: Path, *arguments: str) -> tuple[int, Any, str]:
    """Run a program of the lab on this run's servers; returns exit status, its JSON report and its output."""
    done = subprocess.run(
        [sys.executable, "-m", module, "--json", str(report), *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr
    assert report.exists(), output[-4000:]
    return done.returncode, json.loads(report.read_text()), output


def test_a_crash_at_any_io_boundary_of_anything_breaks_no_promise(
    tmp_path: Path, figure: Callable[[str], None]
) -> None:
    status, report, output = run("lab.faultpoints", tmp_path / "report.json")
    points = report["points"]
    figure(
        f"{report['scenarios']} scenarios; {points['kill']} kills, {points['cut']} cut connections,"
        f" {points['duplicate']} concurrent duplicates, {points['frozen']} frozen, {points['pair']} pairs of kills;"
        f" {len(report['failures'])} violations, in {report['seconds']:.0f} s"
    )
    assert not report["missing"], "tasks or endpoints without a scenario in lab/faultpoints/scenarios.py"
    assert not report["failures"], output[-8000:]
    assert report["complete"]
    assert points["pair"] >= 1_000  # both crashes of each happened
    # A boundary that was recorded and not reached again would be a hole in the exploration.
    assert not {name: count for name, count in report["unreached"].items() if not name.endswith(" pair")}
    assert status == 0


def test_each_mutation_is_caught_by_the_check_that_it_names(
    tmp_path: Path, figure: Callable[[str], None]
) -> None:
    _, report, output = run("lab.faultpoints.check_mutations", tmp_path / "mutations.json")
    caught = [name for name, (_, where) in report.items() if where]
    figure(f"{len(caught)} of {len(report)} mutations caught")
    figure(output)
    assert len(report) >= 30
    assert sorted(caught) == sorted(report), output[-8000:]
