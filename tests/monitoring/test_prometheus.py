"""The rules and the dashboard for Prometheus and Grafana: promtool checks and tests them, and they name series that exist."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from django.conf import LazySettings, settings
from django.test import Client

from monitoring.rules import RULES
from tests.monitoring import figures

FOLDER = Path(settings.BASE_DIR) / "monitoring"
RULES_FILE = FOLDER / "prometheus" / "rules.yml"
DASHBOARD = FOLDER / "grafana" / "dashboard.json"
#: A series in an expression: followed by its labels, a range, or the end of the function that it is in.
SERIES = re.compile(r"\b([a-z]\w*_\w+)\b(?=[{\[) ]|$)")
WORDS = {"histogram_quantile"}


def promtool(*arguments: str) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        assert not os.environ.get("CI"), "promtool is missing (Debian package prometheus)"
        pytest.skip("promtool is missing: install the Debian package prometheus")
    ended = subprocess.run(
        [tool, *arguments], cwd=RULES_FILE.parent, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_rules_are_rules_and_the_configuration_is_one() -> None:
    promtool("check", "rules", "rules.yml")
    promtool("check", "config", "--syntax-only", "prometheus.yml")


def test_each_rule_fires_and_resolves() -> None:
    promtool("test", "rules", "rules_test.yml")
    tested = (FOLDER / "prometheus" / "rules_test.yml").read_text()
    for name in re.findall(r"- alert: (\w+)", RULES_FILE.read_text()):
        assert re.search(rf"alertname: {name}\n\s+exp_alerts:\n", tested), f"nothing fires {name}"


def test_what_pages_is_a_rule_and_the_rest_is_the_opposite() -> None:
    page, ticket = re.findall(r'holdfast_alert_firing{alert[=!]~"([^"]+)"}', RULES_FILE.read_text())
    assert page == ticket
    assert set(page.split("|")) <= set(RULES)


@pytest.mark.django_db
def test_rules_and_dashboard_name_series_that_there_are(settings: LazySettings) -> None:
    settings.MONITORING_SERIES = {}
    figures.DLQ.setdefault("dead_lettered", [])
    known = {line.partition("{")[0].partition(" ")[0] for line in Client().get("/metrics").text.splitlines()}
    rules = RULES_FILE.read_text()
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    asked += re.findall(r"expr: (?:>-\n\s+)?(.+)", rules)
    assert len(asked) > 25
    recorded = set(re.findall(r"record: (\S+)", rules))
    for expression in asked:
        plain = re.sub(r'"[^"]*"|by \([^)]*\)', "", expression)
        for name in recorded:
            plain = plain.replace(name, "")
        missing = set(SERIES.findall(re.sub(r"{[^}]*}", "{", plain))) - known - WORDS
        assert not missing, expression
