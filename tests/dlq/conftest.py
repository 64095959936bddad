"""One worker for all tests of a module: what a test does to a message must not touch the worker anyway."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest
from pytest_django import DjangoDbBlocker

from config.celery import app
from outbox import dlq_hooks
from tests.dlq.operating import publisher, sent
from tests.support import brokers, effects
from tests.support.processes import Process, await_, worker


@pytest.fixture(scope="module")
def live(broker: str, django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[Process]:
    """A running worker with two processes on the queue `default`."""
    with django_db_blocker.unblock():
        brokers.empty()
        with worker(concurrency=2, name="live") as process:
            yield process


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what its worker said."""
    report = yield
    process = getattr(item, "funcargs", {}).get("live")
    if report.failed and process is not None and process.log.exists():
        report.sections.append(("Log of the worker", process.output()[-20_000:]))
    return report


@pytest.fixture
def tidy(request: pytest.FixtureRequest, transactional_db: None) -> Iterator[None]:
    """Committed data, no effects; the broker is left alone, because a worker is connected to it."""
    effects.clear()
    yield
    if "live" in request.fixturenames:
        # What the worker's parent has still to say about this test's messages must not reach the next test.
        await_(_is_idle, "the worker has ended everything")


@pytest.fixture
def no_effects(db: None) -> None:
    """For tests that count what their tasks leave."""
    effects.clear()


@pytest.fixture
def journal_of_every_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent again and discarded is in `tests.dlq.operating.sent`, whatever the journal has."""
    monkeypatch.setattr(dlq_hooks, "republish", publisher)
    monkeypatch.setattr(dlq_hooks, "discard", lambda message_id: sent.append(f"-{message_id}"))
    sent.clear()


def _is_idle() -> bool:
    replies = app.control.inspect(destination=["live@test"], timeout=2, limit=1).active()
    return bool(replies) and not any(replies.values())
