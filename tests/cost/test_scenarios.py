"""What every endpoint, task and pass costs, counted in the scenarios that the crash points explore."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection

from lab.faultpoints.environment import Environment
from lab.faultpoints.scenario import Scenario
from lab.faultpoints.scenarios import SCENARIOS
from outbox.session import is_shared
from tests.cost.counting import Cost, counting
from tests.cost.table import compare
from tests.lab.sandbox_fixture import RunningSandbox

#: Two at once, of which each alone is counted elsewhere; and beat, of which the tests' settings have no schedule.
_NOT_COUNTED = ("post_two_orders", "process_while_cancelled", "deliver_in_order", "publish_in_order", "beat")


@pytest.fixture
def environment(
    clean: None, sandbox_settings: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Environment]:
    # As in a new process: an earlier test of this one may have asked /readyz, which then does not write for some seconds.
    monkeypatch.setattr("monitoring.health._wrote_at", float("-inf"))
    founded = Environment(sandbox_settings.url)
    founded.found()
    yield founded
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE crashpoints_witness; DROP SCHEMA IF EXISTS crashpoints_snapshot CASCADE")


def test_endpoints_tasks_and_passes_cost_what_the_page_says(environment: Environment) -> None:
    sections: dict[str, dict[str, Cost]] = {"Endpoints": {}, "Tasks": {}, "Passes": {}}
    for scenario in SCENARIOS.values():
        if scenario.name not in _NOT_COUNTED and not scenario.covers.startswith("lab."):
            sections[_section(scenario.covers)][_name(scenario)] = _cost(environment, scenario)
    for section, costs in sections.items():
        compare(section, costs)


def _cost(environment: Environment, scenario: Scenario) -> Cost:
    state = environment.start(scenario)
    is_shared()  # asked once a connection
    environment.processes.begin()  # a relay and a rescuer that have passed before skip by the clock what they did just now
    with counting() as cost:
        scenario.act(environment, state)
    return cost


def _section(covers: str) -> str:
    if covers.startswith(("GET ", "POST ")):
        return "Endpoints"
    return "Passes" if " " in covers or "." not in covers else "Tasks"


def _name(scenario: Scenario) -> str:
    """What it covers, and which case of it where there are several."""
    if scenario.name == scenario.covers.rpartition(".")[2]:
        return scenario.covers
    return f"{scenario.covers} ({scenario.name})"
