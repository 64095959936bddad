"""What every test has: a database with the effects table, an empty Redis, and no real waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from celery import current_app
from django.apps import apps
from django.db.models.signals import post_migrate

from dlq import call
from outbox.enqueue import import_tasks
from resilience import circuits
from resilience.connection import get_redis
from tests.support import brokers, effects

pytest_plugins = ["tests.lab.sandbox_fixture", "tests.support.broker_fixture", "tests.support.pooler_fixture"]


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: pytest.FixtureRequest) -> None:
    with django_db_blocker.unblock():  # type: ignore[attr-defined]
        effects.create_table()
    # It is no model's table, so that Django would not empty it after a test that commits. This signal is the end of that.
    post_migrate.connect(lambda **_: effects.clear(), sender=apps.get_app_config("outbox"), weak=False)


@pytest.fixture(scope="session", autouse=True)
def tasks_are_imported() -> None:
    """Else the first look for an unknown name in a test would, and set up Django's logging anew: `caplog` missed the rest."""
    import_tasks()
    call.import_tasks()


@pytest.fixture(autouse=True)
def celerys_settings_stay() -> Iterator[None]:
    """What a test writes to Celery's configuration and leaves there would hide Django's settings from later tests."""
    current_app.conf.get("timezone")  # the first look loads Celery's configuration
    before = dict(current_app.conf.changes)
    yield
    assert current_app.conf.changes == before


@pytest.fixture
def clean(transactional_db: None, broker: str) -> None:
    """For tests with committed data and real processes: starts without effects and with an empty broker."""
    effects.clear()
    brokers.empty()
    get_redis().delete(circuits.KEY)


#: For tests in which the broker forgets everything.
flush_redis = brokers.empty


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Report a measured figure; all are printed at the end of the run, with the test that saw them."""
    return lambda text: record_property("figure", text)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, or one process ends alone with one of them while the other has nothing left to do."""
    items.sort(key=lambda item: "tests/proof/" not in item.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    # By way of the reports, which reach the process that prints also from those that run tests side by side.
    reports = [report for found in terminalreporter.stats.values() for report in found]
    figures = [
        f"{report.nodeid.rpartition('::')[2]}: {text}"
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, text in report.user_properties
        if name == "figure"
    ]
    if figures:
        terminalreporter.section("figures")
        for line in figures:
            terminalreporter.write_line(line)
