"""The explorer of crash points sees what there is to see: every task, every endpoint, every kind of I/O."""

from __future__ import annotations

import pytest
import requests
from django.db import connection, transaction

from lab.crashpoints import scenarios
from lab.crashpoints.boundaries import Point, Watch, cut, install, watching
from lab.crashpoints.bugs import BUGS
from lab.stack.stack import ROOT
from tests.lab.sandbox_fixture import RunningSandbox


@pytest.mark.django_db
def test_every_task_and_endpoint_has_a_scenario() -> None:
    assert scenarios.missing() == [], "add a scenario to lab/crashpoints/scenarios.py"


@pytest.mark.django_db
def test_a_task_without_a_scenario_is_named() -> None:
    known = {scenario.covers for scenario in scenarios.SCENARIOS.values()}
    assert "orders.tasks.process_order" in known
    without = {
        name: one for name, one in scenarios.SCENARIOS.items() if one.covers != "orders.tasks.send_receipt"
    }
    assert scenarios.missing(without) == ["orders.tasks.send_receipt"]


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


@pytest.mark.parametrize("name", BUGS)
def test_a_seeded_bug_fits_the_source_as_it_is(name: str) -> None:
    for patch in BUGS[name].patches:
        source = ROOT / f"{patch.module.replace('.', '/')}.py"
        assert source.read_text().count(patch.old) == 1, f"adapt it in lab/crashpoints/bugs.py: {patch.old!r}"
    assert BUGS[name].scenario in scenarios.SCENARIOS


@pytest.mark.parametrize("name", BUGS)
def test_a_seeded_bug_names_the_check_that_must_notice_it(name: str) -> None:
    assert BUGS[name].caught_by, "any violation at all would do"
