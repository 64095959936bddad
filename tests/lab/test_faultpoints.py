"""The explorer of crash points sees what there is to see: every task, every endpoint, every kind of I/O."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from django.db import connection, transaction

from lab.faultpoints import coverage, scenarios
from lab.faultpoints.boundaries import Point, Watch, cut, install, watching
from lab.faultpoints.environment import Environment
from lab.faultpoints.mutations import MUTATIONS
from lab.stack.stack import ROOT
from orders.api import limits
from tests.lab.sandbox_fixture import RunningSandbox


@pytest.mark.django_db
def test_every_task_and_endpoint_has_a_scenario() -> None:
    assert coverage.missing() == [], "add a scenario to lab/faultpoints/scenarios.py"


@pytest.mark.django_db
def test_a_task_without_a_scenario_is_named() -> None:
    known = {scenario.covers for scenario in scenarios.SCENARIOS.values()}
    assert "orders.tasks.process_order" in known
    without = {
        name: one for name, one in scenarios.SCENARIOS.items() if one.covers != "orders.tasks.send_receipt"
    }
    assert coverage.missing(without) == ["orders.tasks.send_receipt"]


@pytest.mark.django_db(transaction=True)
def test_statements_commits_and_requests_are_boundaries(sandbox: RunningSandbox) -> None:
    install()
    watch = Watch()
    with watching(watch):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT 2")
            transaction.set_rollback(True)
        requests.get(f"{sandbox.url}/healthz", timeout=10)
    assert [crossing.kind for crossing in watch.crossings] == [
        "sql",
        "commit",
        "sql",
        "rollback",
        "http",
        "http",
    ]


@pytest.mark.django_db(transaction=True)
def test_a_cut_after_the_commit_leaves_what_was_committed_and_an_error() -> None:
    install()
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS crashpoints_probe (n int)")
        cursor.execute("DELETE FROM crashpoints_probe")
    with (
        watching(Watch(Point(1, "after"), cut)),
        pytest.raises(Exception, match="cut here"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute("INSERT INTO crashpoints_probe VALUES (1)")
    connection.close()
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM crashpoints_probe")
        assert cursor.fetchone()[0] == 1
        cursor.execute("DROP TABLE crashpoints_probe")


@pytest.mark.django_db(transaction=True)
def test_a_boundary_whose_call_fails_has_a_far_side() -> None:
    install()
    struck: list[int] = []
    with (
        watching(Watch(Point(0, "after"), lambda crossing: struck.append(crossing.number))),
        pytest.raises(Exception, match="division by zero"),
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT 1 / 0")
    assert struck == [0]


@pytest.fixture
def environment(clean: None, sandbox_settings: RunningSandbox) -> Iterator[Environment]:
    founded = Environment(sandbox_settings.url)
    founded.found()
    yield founded
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE crashpoints_witness; DROP SCHEMA IF EXISTS crashpoints_snapshot CASCADE")


def _everything(environment: Environment) -> dict[str, Any]:
    """All that a scenario can change, without times."""
    content: dict[str, Any] = {"redis": environment.processes.contents()}
    with connection.cursor() as cursor:
        for table in environment.tables:
            cursor.execute(
                "SELECT string_agg(quote_ident(column_name), ', ') FROM information_schema.columns"
                " WHERE table_schema = 'public' AND table_name = %s AND data_type <> 'timestamp with time zone'",
                [table],
            )
            cursor.execute(f"SELECT {cursor.fetchone()[0]} FROM {table} ORDER BY 1")
            content[table] = cursor.fetchall()
    environment.sandbox.forget()
    for name in ("charges", "refunds", "shipments", "crm", "webhooks", "mail"):
        content[f"sandbox {name}"] = environment.sandbox.ledger(name)
    return content


def _age_of_the_newest_message() -> float:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT extract(epoch FROM clock_timestamp() - max(created_at))::float8 FROM outbox_outboxmessage"
        )
        return float(cursor.fetchone()[0])


def test_a_restored_start_is_as_it_was_staged_and_no_older(environment: Environment) -> None:
    scenario = scenarios.SCENARIOS["deliver"]
    state = environment.start(scenario)
    age, staged = _age_of_the_newest_message(), _everything(environment)
    assert staged["sandbox charges"]
    for _ in range(2):
        environment.processes.until_quiet()
        state["of a run"] = "is forgotten"
        assert _everything(environment) != staged
        began = time.monotonic()
        state = environment.start(scenario)
        assert _age_of_the_newest_message() <= age + time.monotonic() - began
        assert _everything(environment) == staged
    assert state.keys() == {"queue", "raw"}


def test_a_start_of_another_scenario_is_its_own(environment: Environment) -> None:
    environment.start(scenarios.SCENARIOS["deliver"])
    assert environment.start(scenarios.SCENARIOS["post_order"]) == {}
    assert environment.sandbox.ledger("charges") == []


def test_the_labs_relay_looks_for_heads_after_a_long_look_too(environment: Environment) -> None:
    environment.processes.relay._heads_at = time.monotonic() + 3_600
    assert environment.start(scenarios.SCENARIOS["discard"])["dead_letter"]


def test_a_concurrent_duplicate_does_not_wait_for_the_struck_process(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for a lock that only the struck process can release."""
    monkeypatch.setattr("lab.faultpoints.environment.CHILD_TIMEOUT_S", 10.0)
    reports = []

    def while_it_counts(limit: int) -> int:
        monkeypatch.setattr(limits, "backlog", lambda limit: 0)
        reports.append(environment.child(limits.check_backlog))
        return 0

    limits._admission.cache_clear()
    monkeypatch.setattr(limits, "backlog", while_it_counts)
    limits.check_backlog()
    assert [report.error for report in reports] == [""]


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_fits_the_source_as_it_is(name: str) -> None:
    for patch in MUTATIONS[name].patches:
        source = ROOT / f"{patch.module.replace('.', '/')}.py"
        assert source.read_text().count(patch.old) == 1, (
            f"adapt it in lab/faultpoints/mutations.py: {patch.old!r}"
        )
    assert MUTATIONS[name].scenario in scenarios.SCENARIOS


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_names_the_check_that_must_notice_it(name: str) -> None:
    assert MUTATIONS[name].caught_by, "any violation at all would do"
